"""Tiny random Mistral bases, and adapters for them that come as different as PEFT writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Base:
    """The sizes of one; vLLM's CPU attention wants a head of 32, 64, 80, …"""

    head_dim: int = 32
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 256
    layers: int = 4
    vocabulary: int = 512
    positions: int = 2048

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim

    def shape(self, module: str) -> tuple[int, int]:
        """Outputs and inputs."""
        return {
            "q_proj": (self.hidden, self.hidden), "o_proj": (self.hidden, self.hidden),
            "k_proj": (self.kv_heads * self.head_dim, self.hidden),
            "v_proj": (self.kv_heads * self.head_dim, self.hidden),
            "gate_proj": (self.mlp, self.hidden), "up_proj": (self.mlp, self.hidden),
            "down_proj": (self.hidden, self.mlp),
        }[module]  # fmt: skip

    def config(self, dtype: torch.dtype) -> dict[str, object]:
        return {
            "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
            "hidden_size": self.hidden, "head_dim": self.head_dim, "intermediate_size": self.mlp,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "num_hidden_layers": self.layers, "vocab_size": self.vocabulary, "sliding_window": None,
            "max_position_embeddings": self.positions, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "bos_token_id": 1,
            "eos_token_id": 2, "dtype": str(dtype).removeprefix("torch."),
        }  # fmt: skip

    def write(self, folder: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
        """A model with random weights of the usual size, and a tokenizer that has one word per token."""
        random = torch.Generator().manual_seed(seed)
        weights = {
            "model.embed_tokens.weight": _normal(random, (self.vocabulary, self.hidden), 1),
            "model.norm.weight": 1 + _normal(random, (self.hidden,), 0.1),
            "lm_head.weight": _normal(random, (self.vocabulary, self.hidden), 3 * self.hidden**-0.5),
        }
        for layer in range(self.layers):
            for module in ATTENTION + MLP:
                shape = self.shape(module)
                weights[f"model.{name(layer, module)}.weight"] = _normal(random, shape, shape[1] ** -0.5)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                weights[f"model.layers.{layer}.{norm}.weight"] = 1 + _normal(random, (self.hidden,), 0.1)
        folder.mkdir(parents=True)
        rounded = {name: weight.to(dtype) for name, weight in weights.items()}
        save_file(rounded, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config(dtype)))
        _write_tokenizer(folder, self.vocabulary)
        return folder


@dataclass(frozen=True)
class Adapter:
    """What PEFT's files say; `ranks` are exceptions from `rank`, by module, `missing` is (layer, module)."""

    modules: Sequence[str] = ATTENTION
    rank: int = 8
    alpha: int = 8
    rslora: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    layers: Sequence[int] = range(4)
    missing: Sequence[tuple[int, str]] = ()
    size: float = 1.0
    """Of its delta, beside the base's weights."""

    def write(self, folder: Path, base: Base, seed: int, dtype: torch.dtype = torch.float32) -> Path:
        random = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer in self.layers:
            for module in self.modules:
                if (layer, module) in self.missing:
                    continue
                rank, (outputs, inputs) = self.ranks.get(module, self.rank), base.shape(module)
                scaling = self.alpha / (rank**0.5 if self.rslora else rank)
                path = f"base_model.model.model.{name(layer, module)}"
                tensors[f"{path}.lora_A.weight"] = _normal(random, (rank, inputs), inputs**-0.5)
                # the delta of a token is then as large as `size` times the base's, whatever rank and alpha are
                tensors[f"{path}.lora_B.weight"] = _normal(
                    random, (outputs, rank), self.size / scaling / rank**0.5
                )
        folder.mkdir(parents=True)
        rounded = {name: weight.to(dtype) for name, weight in tensors.items()}
        save_file(rounded, folder / "adapter_model.safetensors")
        described = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base", "r": self.rank,
            "lora_alpha": self.alpha, "use_rslora": self.rslora, "rank_pattern": dict(self.ranks),
            "target_modules": list(self.modules),
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(described))
        return folder


def name(layer: int, module: str) -> str:
    """What transformers calls it, below "model."."""
    return f"layers.{layer}.{'self_attn' if module in ATTENTION else 'mlp'}.{module}"


def _normal(random: torch.Generator, shape: tuple[int, ...], size: float) -> torch.Tensor:
    return torch.randn(shape, generator=random) * size


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "w0",
        "bos_token": "w1",
        "eos_token": "w2",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))

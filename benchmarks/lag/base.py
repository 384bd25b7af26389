"""The model that is measured: a base with random weights, and adapters for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

RANK = 16


@dataclass(frozen=True)
class Shape:
    """Of a Mistral with untied embeddings and as many heads for keys as for queries."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Without the few of the norms."""
        each = 4 * self.hidden**2 + 3 * self.hidden * self.inner
        return self.layers * each + 2 * self.vocabulary * self.hidden


def make_base(folder: Path, shape: Shape) -> Path:
    """Weights, float32, and the configuration; no tokenizer."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads, vocab_size=shape.vocabulary,
        max_position_embeddings=1024, sliding_window=None,
    )  # fmt: skip
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def make_adapter(folder: Path, shape: Shape, seed: int) -> Path:
    """On the attention of all layers, its delta about as large as what it is added to."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(shape.layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = torch.randn(RANK, shape.hidden, generator=random) / shape.hidden**0.5
            weights[f"{at}.lora_B.weight"] = torch.randn(shape.hidden, RANK, generator=random) / 8
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    told = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")
    return folder

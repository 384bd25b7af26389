"""A base's shape, from its config.json alone: modules as PEFT names them, their widths, and all parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Config = dict[str, Any]
Width = tuple[int, int]
"""What a module reads and writes."""

PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Modules that vLLM keeps as one, of which an adapter knows the parts."""


@dataclass(frozen=True)
class Shape:
    """One transformer. `rest` counts the parameters that are no linear module's weight and no embedding."""

    layers: int
    layer: str
    linear: dict[str, Width]
    embedding: tuple[str, Width]
    head: str
    tied: bool
    rest: int
    kv_heads: int
    head_dim: int
    serves_lora: bool = True
    serves_embeddings: bool = False

    @property
    def parameters(self) -> int:
        """All of them; a head that is tied to the embedding counts once."""
        vocabulary, hidden = self.embedding[1]
        linear = sum(reads * writes for reads, writes in self.linear.values())
        return (1 if self.tied else 2) * vocabulary * hidden + self.layers * linear + self.rest

    @cached_property
    def adapted(self) -> dict[str, Width]:
        """Every module that vLLM can give an adapter, by full name."""
        found = {
            f"{self.layer}.{number}.{name}": width
            for number in range(self.layers)
            for name, width in self.linear.items()
        }
        if self.serves_embeddings:
            name, (vocabulary, hidden) = self.embedding
            found |= {name: (vocabulary, hidden), self.head: (hidden, vocabulary)}
        return found

    @property
    def kv_values(self) -> int:
        """Numbers that the cache holds for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def shape(config: Config) -> Shape | None:
    """None for an architecture that is not known here, or a config that lacks what it needs."""
    reader = READERS.get(str(config.get("model_type")))
    try:
        return reader(config) if reader else None
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def _llama(
    config: Config,
    *,
    tied: bool = False,
    norms: int = 2,
    head_norms: bool = False,
    bias: bool = False,
    head_dim: int | None = None,
    serves_embeddings: bool = False,
) -> Shape:
    """The family: `norms` in a layer, `head_norms` of queries and keys, `bias` of the q, k and v projections."""
    hidden, middle, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or head_dim or hidden // heads
    kv_heads = config.get("num_key_value_heads") or heads
    queries, keys, layers = heads * head, kv_heads * head, config["num_hidden_layers"]
    rest = norms * hidden + (2 * head if head_norms else 0)
    if bias or config.get("attention_bias"):
        rest += queries + 2 * keys + (hidden if config.get("attention_bias") else 0)
    if config.get("mlp_bias"):
        rest += 2 * middle + hidden
    return Shape(
        layers=layers,
        layer="model.layers",
        linear={
            "self_attn.q_proj": (hidden, queries),
            "self_attn.k_proj": (hidden, keys),
            "self_attn.v_proj": (hidden, keys),
            "self_attn.o_proj": (queries, hidden),
            "mlp.gate_proj": (hidden, middle),
            "mlp.up_proj": (hidden, middle),
            "mlp.down_proj": (middle, hidden),
        },
        embedding=("model.embed_tokens", (config["vocab_size"], hidden)),
        head="lm_head",
        tied=config.get("tie_word_embeddings", tied),
        rest=layers * rest + hidden,
        kv_heads=kv_heads,
        head_dim=head,
        serves_embeddings=serves_embeddings,
    )


def _gpt2(config: Config) -> Shape:
    hidden, layers, heads = config["n_embd"], config["n_layer"], config["n_head"]
    middle = config.get("n_inner") or 4 * hidden
    norms, biases = 4 * hidden, 3 * hidden + hidden + middle + hidden
    return Shape(
        layers=layers,
        layer="transformer.h",
        linear={
            "attn.c_attn": (hidden, 3 * hidden),
            "attn.c_proj": (hidden, hidden),
            "mlp.c_fc": (hidden, middle),
            "mlp.c_proj": (middle, hidden),
        },
        embedding=("transformer.wte", (config["vocab_size"], hidden)),
        head="lm_head",
        tied=config.get("tie_word_embeddings", True),
        rest=layers * (norms + biases) + 2 * hidden + config["n_positions"] * hidden,
        kv_heads=heads,
        head_dim=hidden // heads,
        serves_lora=False,
    )


def _bloom(config: Config) -> Shape:
    hidden, heads = (
        config.get("hidden_size") or config["n_embed"],
        config.get("n_head") or config["num_attention_heads"],
    )
    layers = config.get("n_layer") or config["num_hidden_layers"]
    norms, biases = 4 * hidden, 3 * hidden + hidden + 4 * hidden + hidden
    return Shape(
        layers=layers,
        layer="transformer.h",
        linear={
            "self_attention.query_key_value": (hidden, 3 * hidden),
            "self_attention.dense": (hidden, hidden),
            "mlp.dense_h_to_4h": (hidden, 4 * hidden),
            "mlp.dense_4h_to_h": (4 * hidden, hidden),
        },
        embedding=("transformer.word_embeddings", (config["vocab_size"], hidden)),
        head="lm_head",
        tied=config.get("tie_word_embeddings", True),
        rest=layers * (norms + biases) + 4 * hidden,
        kv_heads=heads,
        head_dim=hidden // heads,
        serves_lora=False,
    )


READERS: dict[str, Callable[[Config], Shape]] = {
    "llama": lambda config: _llama(config, serves_embeddings=True),
    "mistral": _llama,
    "qwen2": lambda config: _llama(config, bias=True),
    "qwen3": lambda config: _llama(config, head_norms=True, head_dim=128, serves_embeddings=True),
    "gemma": lambda config: _llama(config, tied=True, head_dim=256),
    "gemma2": lambda config: _llama(config, tied=True, norms=4, head_dim=256),
    "gemma3_text": lambda config: _llama(config, tied=True, norms=4, head_norms=True, head_dim=256),
    "gpt2": _gpt2,
    "bloom": _bloom,
}
"""By model_type. vLLM 0.32 adapts embedding and head of Llama and Qwen3 alone, and nothing of GPT-2 and BLOOM."""

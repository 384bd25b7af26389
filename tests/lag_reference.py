"""LAG as its paper has it, in dense float64: a Mistral, every adapter a full delta, every choice from its own SVD.

Shares nothing with the plugin. Fleshman and Van Durme, 2025 (arXiv 2507.05346), equations 3 and 4; the score
"norm" is that of SpectR (arXiv 2504.03454), and the filter Arrow's (arXiv 2405.11157).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import silu

Score = Literal["norm", "projection"]
Place = tuple[str, int]
"""A linear module ("layers.0.mlp.up_proj"), and one of a model's libraries."""


@dataclass(frozen=True)
class Lag:
    """A virtual model: each token takes one adapter of each library, in every linear module by itself."""

    libraries: tuple[tuple[str, ...], ...]
    k: int
    score: Score = "norm"


Model = Lag | str | None
"""What a request asks for; None: the base."""


@dataclass(frozen=True)
class Delta:
    """One adapter in one module; U S Vᵀ = `weight` [out, in], of which only the adapter's rank is kept."""

    weight: Tensor
    s: Tensor
    vt: Tensor

    def arrow(self, x: Tensor) -> Tensor:
        return (x @ self.vt[0]).abs()

    def score(self, x: Tensor, score: Score) -> Tensor:
        vx = x @ self.vt.T
        return (vx * self.s if score == "norm" else vx).norm(dim=-1)


@dataclass
class Answer:
    """Of T tokens. An adapter is a number in its library, or -1: none."""

    log_probs: Tensor = field(default_factory=lambda: torch.empty(0))
    """[T, vocabulary]."""
    choices: dict[Place, Tensor] = field(default_factory=dict)
    """[T] each; what the scores say, also where another choice was forced."""
    margins: dict[Place, Tensor] = field(default_factory=dict)
    """[T] each: how close a choice was: best to second score, relative, or k-th to next in the filter, relative to
    what any direction would give."""

    @property
    def margin(self) -> float:
        """The smallest of all."""
        return min((float(margin.min()) for margin in self.margins.values()), default=1.0)


class Reference:
    """A base and its adapters, read from their folders."""

    def __init__(self, base: Path, adapters: Mapping[str, Path]) -> None:
        self._config: dict[str, Any] = json.loads((base / "config.json").read_text())
        weights = load_file(base / "model.safetensors")
        self._weights = {name.removeprefix("model."): weight.double() for name, weight in weights.items()}
        self._adapters = {name: read_adapter(folder) for name, folder in adapters.items()}

    def answer(
        self, tokens: Sequence[int], model: Model = None, forced: Mapping[Place, Tensor] | None = None
    ) -> Answer:
        """Teacher-forced; with `forced` choices, those are added in place of the scores' own."""
        return _Pass(self._config, self._weights, self._adapters, model, forced or {}).run(torch.tensor(tokens))


def read_adapter(folder: Path) -> dict[str, Delta]:
    """PEFT's files as one delta per module, scaled as PEFT does."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    deltas = {}
    for name, a in tensors.items():
        if found := re.fullmatch(r"base_model\.model\.model\.(.*)\.lora_A\.weight", name):
            b = tensors[name.replace("lora_A", "lora_B")].double()
            deltas[found[1]] = _delta(a.double(), b, config["lora_alpha"], config.get("use_rslora", False))
    return deltas


def _delta(a: Tensor, b: Tensor, alpha: float, rslora: bool) -> Delta:
    rank = a.shape[0]
    weight = alpha / (rank**0.5 if rslora else rank) * (b @ a)
    _, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return Delta(weight, s[:rank], vt[:rank])


@dataclass(frozen=True)
class _Pass:
    """One sequence through the model."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    adapters: Mapping[str, Mapping[str, Delta]]
    model: Model
    forced: Mapping[Place, Tensor]
    out: Answer = field(default_factory=Answer)

    def run(self, tokens: Tensor) -> Answer:
        x = self.weights["embed_tokens.weight"][tokens]
        for layer in range(self.config["num_hidden_layers"]):
            x = x + self._attention(f"layers.{layer}.self_attn", self._norm(f"layers.{layer}.input_layernorm", x))
            x = x + self._mlp(f"layers.{layer}.mlp", self._norm(f"layers.{layer}.post_attention_layernorm", x))
        head = self.weights["lm_head.weight"]
        self.out.log_probs = (self._norm("norm", x) @ head.T).log_softmax(-1)
        return self.out

    def _norm(self, name: str, x: Tensor) -> Tensor:
        mean = x.pow(2).mean(-1, keepdim=True)
        return self.weights[f"{name}.weight"] * x / (mean + self.config["rms_norm_eps"]).sqrt()

    def _attention(self, name: str, x: Tensor) -> Tensor:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        q, k, v = (self._linear(f"{name}.{part}_proj", x).unflatten(-1, (-1, self._head_dim)) for part in "qkv")
        q, k = self._rotated(q), self._rotated(k)
        k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / self._head_dim**0.5
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        mixed = torch.einsum("hij,jhd->ihd", scores.masked_fill(future, -torch.inf).softmax(-1), v)
        return self._linear(f"{name}.o_proj", mixed.flatten(1))

    @property
    def _head_dim(self) -> int:
        return int(self.config["head_dim"])

    def _rotated(self, x: Tensor) -> Tensor:
        # A Mistral's angles are float32 by definition: far into a context float64 would be another model.
        speeds = 1 / self.config["rope_parameters"]["rope_theta"] ** (
            torch.arange(0, self._head_dim, 2).float() / self._head_dim
        )
        angles = (torch.arange(len(x)).float()[:, None] * speeds)[:, None]
        cos, sin = angles.cos().double(), angles.sin().double()
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        gate, up = self._linear(f"{name}.gate_proj", x), self._linear(f"{name}.up_proj", x)
        return self._linear(f"{name}.down_proj", silu(gate) * up)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        if isinstance(self.model, str):
            delta = self.adapters[self.model].get(name)
            return y if delta is None else y + x @ delta.weight.T
        if isinstance(self.model, Lag):
            for number, members in enumerate(self.model.libraries):
                y = y + self._routed((name, number), members, self.model, x)
        return y

    def _routed(self, place: Place, members: Sequence[str], lag: Lag, x: Tensor) -> Tensor:
        deltas = {
            number: self.adapters[member][place[0]]
            for number, member in enumerate(members)
            if place[0] in self.adapters[member]
        }
        if not deltas:
            return torch.zeros(())
        self.out.choices[place], self.out.margins[place] = choose(deltas, lag.k, lag.score, x)
        chosen = self.forced.get(place, self.out.choices[place])
        added = [torch.where((chosen == number)[:, None], x @ d.weight.T, 0) for number, d in deltas.items()]
        return torch.stack(added).sum(0)


def choose(deltas: Mapping[int, Delta], k: int, score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """The adapter of each row of `x` [T, in], and how close that was; each [T]."""
    numbers, k = torch.tensor(list(deltas)), min(k, len(deltas))
    arrow = torch.stack([delta.arrow(x) for delta in deltas.values()], -1)
    scores = torch.stack([delta.score(x, score) for delta in deltas.values()], -1)
    ranked, order = arrow.sort(descending=True, stable=True)
    kept = scores.gather(1, order[:, :k])
    best = order.gather(1, kept.argmax(-1, keepdim=True)).squeeze(1)
    margin = torch.ones(len(x), dtype=torch.float64)
    if k < len(deltas):
        margin = torch.minimum(margin, (ranked[:, k - 1] - ranked[:, k]) / x.pow(2).mean(-1).sqrt())
    if k > 1:
        tops = kept.topk(2).values
        margin = torch.minimum(margin, 1 - tops[:, 1] / tops[:, 0])
    return numbers[best], margin

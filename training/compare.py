"""`compare(model, rows, batch_size) -> Comparison`: does an adapter beat its base on rows that it never saw?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm  # type: ignore[import-untyped]

from training.data.tokens import IGNORE

RESAMPLES = 2000
SEED = 0

Row = dict[str, list[int]]
"""`input_ids`, and `labels` that are IGNORE before the answer."""


@dataclass(frozen=True)
class Losses:
    """Of each row, in the order given: the nats of its answer, summed, and how many tokens that has."""

    nats: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Nats per answer token, over all tokens alike."""
        return math.fsum(self.nats) / sum(self.tokens)

    def mean_of_batches(self, size: int) -> float:
        """As transformers' Trainer measures: nats per token of each batch, weighted by its rows."""
        starts = range(0, len(self.nats), size)
        batches = ((self.nats[start : start + size], self.tokens[start : start + size]) for start in starts)
        return math.fsum(len(nats) * math.fsum(nats) / sum(tokens) for nats, tokens in batches) / len(self.nats)

    @property
    def perplexity(self) -> float:
        """How many equally likely tokens would be as surprising."""
        return math.exp(self.mean) if self.mean < 700 else math.inf  # what is larger is no float


@dataclass(frozen=True)
class Comparison:
    """Base and adapter on the same rows; `low` to `high`: 95 % interval of what the adapter gains per token."""

    base: Losses
    adapter: Losses
    low: float
    high: float

    @property
    def gain(self) -> float:
        """How many nats per answer token the adapter is better than its base."""
        return self.base.mean - self.adapter.mean

    @property
    def better(self) -> bool:
        """Whether other rows of this kind would show a gain too. One row alone cannot tell."""
        return len(self.base.tokens) > 1 and self.low > 0

    def line(self) -> str:
        """For the terminal."""
        sides = (("base", self.base), ("adapter", self.adapter))
        losses = ", ".join(f"{name} {side.mean:.3f} (perplexity {side.perplexity:.4g})" for name, side in sides)
        verdict = "better" if self.better else "not better"
        if len(self.base.tokens) == 1:
            return f"1 row held out, which is too few to tell; nats per token: {losses}"
        gain = f"{self.gain:+.3f}, 95 % within {self.low:+.3f} to {self.high:+.3f}"
        return f"{len(self.base.tokens)} rows held out, nats per token: {losses}; the adapter is {verdict}: {gain}"

    def record(self) -> dict[str, Any]:
        """For run.json, without the single rows. What is no number, because a model overflowed, is null."""
        sides = {"base": self.base, "adapter": self.adapter}
        return {
            "rows": len(self.base.tokens),
            "tokens": sum(self.base.tokens),
            **{name: {"loss": _json(s.mean), "perplexity": _json(s.perplexity)} for name, s in sides.items()},
            "gain": {"value": _json(self.gain), "low": _json(self.low), "high": _json(self.high)},
            "better": self.better,
        }


def compare(model: Any, rows: Sequence[Row], batch_size: int) -> Comparison:
    """A PEFT model against itself without its adapter, on held-out rows.

    Raises ValueError for no rows, or a row without an answer.
    """
    with model.disable_adapter():
        base = answer_losses(model, rows, batch_size, "held out, base")
    adapter = answer_losses(model, rows, batch_size, "held out, adapter")
    return compared(base, adapter)


def answer_losses(model: Any, rows: Sequence[Row], batch_size: int, label: str | None = None) -> Losses:
    """The loss of every row's answer under the model as it is; `label` names a progress bar.

    Raises ValueError for no rows, or a row without an answer.
    """
    answers = [[at for at, token in enumerate(row["labels"]) if at and token != IGNORE] for row in rows]
    if not rows or not all(answers):
        raise ValueError(f"no row, or a row without an answer, among {len(rows)}")
    # Like lengths together waste no work on padding, and the longest first run out of memory at once or never.
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))
    nats = [0.0] * len(rows)
    trained = model.training
    model.eval()
    try:
        with torch.inference_mode(), tqdm(total=len(rows), desc=label, unit="row", disable=label is None) as bar:
            for start in range(0, len(rows), batch_size):
                batch = order[start : start + batch_size]
                some = _batch_nats(model, [rows[index] for index in batch], [answers[index] for index in batch])
                for index, value in zip(batch, some, strict=True):
                    nats[index] = value
                bar.update(len(batch))
    finally:
        model.train(trained)
    return Losses(tuple(nats), tuple(map(len, answers)))


def _batch_nats(model: Any, rows: list[Row], answers: list[list[int]]) -> list[float]:
    longest = max(len(row["input_ids"]) for row in rows)
    # Padded on the right, where nothing real can attend to it: no mask is needed, and any token will do.
    ids = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows]
    logits = model(input_ids=torch.tensor(ids, device=model.device), use_cache=False).logits
    nats = []
    for row, found, answer in zip(rows, logits, answers, strict=True):
        # Only what is scored is widened, row by row: all logits of a batch in float32 can be gigabytes.
        predicted = found[[at - 1 for at in answer]].float()
        expected = torch.tensor([row["labels"][at] for at in answer], device=predicted.device)
        nats.append(math.fsum(cross_entropy(predicted, expected, reduction="none").tolist()))
    return nats


def compared(base: Losses, adapter: Losses) -> Comparison:
    """With the interval: rows are drawn, not tokens, each with both losses (paired bootstrap, Efron 1979)."""
    gains: npt.NDArray[np.float64] = np.subtract(base.nats, adapter.nats)
    if not np.isfinite(gains).all():
        return Comparison(base, adapter, math.nan, math.nan)
    tokens = np.array(base.tokens)
    generator = np.random.default_rng(SEED)
    draws = (generator.integers(len(tokens), size=len(tokens)) for _ in range(RESAMPLES))
    low, high = np.quantile([gains[drawn].sum() / tokens[drawn].sum() for drawn in draws], [0.025, 0.975])
    return Comparison(base, adapter, float(low), float(high))


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""From answers to figures on a scale where the right adapter is 100."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.bootstrap import Indices, Interval, interval
from evaluation.lag.ask import Answer
from evaluation.lag.methods import BASE, ORACLE, Method

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Marks:
    """Of one method's answers, one entry for each question."""

    exact: Floats
    nats: Floats
    tokens: Floats

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Marks:
        """In arrays."""
        columns = ([float(getattr(each, key)) for each in answers] for key in ("exact", "nats", "tokens"))
        return cls(*(np.array(column, np.float64) for column in columns))

    def accuracy(self, rows: Indices) -> float:
        """Share of greedy answers that are the reference."""
        return float(self.exact[rows].mean())

    def loss(self, rows: Indices) -> float:
        """Nats per token of the reference answers."""
        return float(self.nats[rows].sum() / self.tokens[rows].sum())


@dataclass(frozen=True)
class Figures:
    """Of one method. The last two are normalised; None where the oracle is no better than nothing, or the base."""

    method: str
    k: int | None
    score: str | None
    right_adapter: float | None
    accuracy: Interval
    loss: Interval
    of_oracle: Interval | None
    of_gap: Interval | None


def of_oracle(method: float, oracle: float) -> float:
    """Percent of the oracle's accuracy, as the paper has it: the base keeps what it can do itself."""
    return 100 * method / oracle if oracle > 0 else float("nan")


def of_gap(method: float, base: float, oracle: float) -> float:
    """Percent of the way from the base's loss to the oracle's: the base is 0, and what is worse lies below."""
    return 100 * (base - method) / (base - oracle) if base > oracle else float("nan")


def figures(
    methods: Sequence[Method], answers: Mapping[str, Sequence[Answer]], right: Mapping[str, float | None]
) -> list[Figures]:
    """Intervals over questions, the same resamples for method, base and oracle."""
    marks = {name: Marks.of(each) for name, each in answers.items()}
    return [_figures(method, marks, right[method.name]) for method in methods]


def _figures(method: Method, marks: Mapping[str, Marks], right: float | None) -> Figures:
    own, base, oracle = marks[method.name], marks[BASE], marks[ORACLE]
    rows = len(own.exact)
    return Figures(
        method.name,
        method.k,
        method.score,
        right,
        interval(own.accuracy, rows),
        interval(own.loss, rows),
        _defined(lambda some: of_oracle(own.accuracy(some), oracle.accuracy(some)), rows),
        _defined(lambda some: of_gap(own.loss(some), base.loss(some), oracle.loss(some)), rows),
    )


def _defined(statistic: Callable[[Indices], float], rows: int) -> Interval | None:
    """None where some resample leaves nothing to compare with: such a figure would say nothing."""
    found = interval(statistic, rows)
    return None if np.isnan([found.value, found.low, found.high]).any() else found

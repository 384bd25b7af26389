"""Percentiles, spreads over rounds, ratios within one run, and the cost of one more chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

One = TypeVar("One")


@dataclass(frozen=True)
class Spread:
    """What several rounds of one measurement gave."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError when there are none."""
        if not values:
            raise ValueError("no rounds")
        return cls(median(values), min(values), max(values), len(values))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in ascending order, linear between neighbours; 0 where there are none."""
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def ratios(numbers: Mapping[int, float], references: Mapping[int, float]) -> list[float]:
    """Round by round, because a shared machine drifts. Left out: a round that only one of them has, and one where
    a cost is zero or below, which is a difference lost in noise and no cost."""
    return [
        number / reference
        for turn, number in numbers.items()
        if number > 0 and (reference := references.get(turn, 0)) > 0
    ]


def rotated(ones: Sequence[One], turn: int) -> list[One]:
    """Every round begins with another one."""
    start = turn % len(ones)
    return [*ones[start:], *ones[:start]]


def two_points(short: tuple[float, float, float], long: tuple[float, float, float]) -> tuple[float, float]:
    """Cost of one stream and of one chunk, from two runs of (cost, streams, chunks).

    Solves `cost = streams * per_stream + chunks * per_chunk`. Raises ValueError when the streams of both runs are
    equally long, or when nothing was sent.
    """
    (cost_a, streams_a, chunks_a), (cost_b, streams_b, chunks_b) = short, long
    determinant = streams_a * chunks_b - streams_b * chunks_a
    if not determinant:
        raise ValueError("both runs have streams of the same length")
    per_stream = (cost_a * chunks_b - cost_b * chunks_a) / determinant
    per_chunk = (cost_b * streams_a - cost_a * streams_b) / determinant
    return per_stream, per_chunk

"""What the router's choices cost, in the measure of the answers: against the right adapter, and against none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.adapters.marks import Marks, Measure, Statistic, defined
from evaluation.adapters.served import Served
from evaluation.bootstrap import Indices, Interval

ORACLE = "oracle"
"""The right adapter for each question, as its label says."""

WRONG, MISSED, NEEDLESS, ANY = "wrong adapter", "missed", "needless adapter", "any wrong choice"


@dataclass(frozen=True)
class Cost:
    """Of the wrong choices of one kind: what one of them takes from the answer, on average."""

    choices: int
    share: float
    mean: Interval | None


@dataclass(frozen=True)
class Regret:
    """In one measure. `regret` and costs are above 0 where the right adapter would have answered better.

    `kept` is the percentage of the way from base to oracle that the router keeps; None where there is no way.
    """

    measure: str
    base: Interval | None
    routed: Interval | None
    oracle: Interval | None
    regret: Interval | None
    kept: Interval | None
    costs: Mapping[str, Cost]


def kind(chosen: str, label: str, base: str, adapters: Sequence[str]) -> str | None:
    """Of a wrong choice; a virtual model that stands in for an unsure router misses as the base does."""
    if chosen == label:
        return None
    if label == base:
        return NEEDLESS
    return WRONG if chosen in adapters else MISSED


def regret(measure: Measure, served: Served, labels: Sequence[str], choices: Sequence[str]) -> Regret:
    """Intervals over rows, the same resamples for base, routed and oracle."""
    base, routed, oracle = (
        measure.of(models) for models in ([served.base] * len(labels), list(choices), list(labels))
    )
    every = np.arange(len(labels))

    def cost(rows: Indices) -> float:
        return measure.sign * (oracle.over(rows) - routed.over(rows))

    kinds = [kind(*each, served.base, served.adapters) for each in zip(choices, labels, strict=True)]
    places = {name: _where(kinds, name) for name in (WRONG, MISSED, NEEDLESS)}
    places[ANY] = np.sort(np.concatenate(list(places.values())))
    costs = {name: _cost(cost, rows, len(labels)) for name, rows in places.items()}
    return Regret(
        measure.key,
        base.interval(every),
        routed.interval(every),
        oracle.interval(every),
        defined(cost, len(labels)),
        defined(lambda rows: _kept(measure.sign, base, routed, oracle, rows), len(labels)),
        costs,
    )


def _cost(cost: Statistic, rows: Indices, of: int) -> Cost:
    return Cost(len(rows), len(rows) / of, defined(lambda some: cost(rows[some]), len(rows)))


def _kept(sign: float, base: Marks, routed: Marks, oracle: Marks, rows: Indices) -> float:
    low, value, high = (sign * each.over(rows) for each in (base, routed, oracle))
    return 100 * (value - low) / (high - low) if high > low else float("nan")


def _where(kinds: Sequence[str | None], name: str) -> Indices:
    return np.array([index for index, each in enumerate(kinds) if each == name], np.int64)

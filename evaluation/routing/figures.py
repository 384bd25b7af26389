"""All figures of one way to decide: what the table, the plots and results.json show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adapters import Calibration, ClassifierName
from evaluation.bootstrap import Interval, interval
from evaluation.routing import metrics
from evaluation.routing.judge import Judge
from evaluation.routing.metrics import Bin, Bools, Floats, Outcomes
from evaluation.routing.rows import Row

SMALL_SOURCE = 5
"""Sources of fewer rows stand together: a share of two rows says nothing."""

CURVE = np.linspace(0, 1, 51)


@dataclass(frozen=True)
class Group:
    """Rows of one class, source or file. `precision`: of what a class's model answered, the share it should."""

    rows: int
    accuracy: Interval
    precision: float | None = None


@dataclass(frozen=True)
class Point:
    """What another threshold would do.

    `coverage`: of the rows that need an adapter, the share that one answers; `precision`: of all rows that an
    adapter answers, the share that it should (None where none answers).
    """

    threshold: float
    coverage: float
    precision: float | None
    accuracy: float
    wrong_adapter: float
    missed: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds per text, each judged alone."""

    texts: int
    mean: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Figures:
    """`among_adapters` is None where no row needs an adapter. `points` is the utility that `--fit` maximises."""

    title: str
    calibration: Mapping[ClassifierName, Calibration]
    rows: int
    accuracy: Interval
    among_adapters: Interval | None
    wrong_adapter: Interval
    missed: Interval
    points: Interval
    nll: Interval
    ece: Interval
    ece_equal_mass: Interval
    classes: Mapping[str, Group]
    sources: Mapping[str, Group]
    files: Mapping[str, Group]
    models: Sequence[str]
    confusion: Sequence[Sequence[int]]
    reliability: Sequence[Bin]
    curve: Sequence[Point]
    latency_ms: Latency


def figures(
    title: str, calibration: Mapping[ClassifierName, Calibration], judge: Judge, rows: Sequence[Row]
) -> Figures:
    """Decide all rows, once for the figures and once for every point of the curve."""
    outcomes = judge.outcomes(rows)
    correct = outcomes.correct
    among = metrics.among_adapters(outcomes)
    small = {source for source, number in Counter(row.source for row in rows).items() if number < SMALL_SOURCE}
    others = f"{len(small)} sources of fewer than {SMALL_SOURCE} rows"
    return Figures(
        title=title,
        calibration=calibration,
        rows=len(rows),
        accuracy=_mean(correct),
        among_adapters=_mean(among) if len(among) else None,
        wrong_adapter=_mean(outcomes.wrong),
        missed=_mean(outcomes.missed),
        points=_mean(outcomes.points),
        nll=_mean(metrics.nll(outcomes)),
        ece=_resampled(outcomes, metrics.ece),
        ece_equal_mass=_resampled(outcomes, metrics.ece_equal_mass),
        classes=_classes(outcomes, judge.models),
        sources=_groups([others if row.source in small else row.source for row in rows], correct),
        files=_groups([row.file for row in rows], correct),
        models=judge.models,
        confusion=metrics.confusion(outcomes).tolist(),
        reliability=metrics.equal_width(outcomes.confidence, correct),
        curve=[_point(judge.outcomes(rows, float(threshold)), float(threshold)) for threshold in CURVE],
        latency_ms=_latency(judge.latencies()),
    )


def _mean(values: Floats | Bools) -> Interval:
    return interval(lambda rows: float(values[rows].mean()), len(values))


def _resampled(outcomes: Outcomes, statistic: Callable[[Outcomes], float]) -> Interval:
    return interval(lambda rows: statistic(outcomes.take(rows)), len(outcomes), biased=True)


def _groups(keys: Sequence[str], correct: Bools) -> dict[str, Group]:
    """Largest first."""
    array = np.array(keys)
    sizes = Counter(keys).most_common()
    return {key: Group(rows, _mean(correct[array == key])) for key, rows in sizes}


def _classes(outcomes: Outcomes, models: Sequence[str]) -> dict[str, Group]:
    found = {}
    for index, model in enumerate(models):
        inside = outcomes.label == index
        if inside.any():
            accuracy = _mean(outcomes.correct[inside])
            found[model] = Group(int(inside.sum()), accuracy, metrics.precision(outcomes, index))
    return found


def _point(outcomes: Outcomes, threshold: float) -> Point:
    by_adapter = outcomes.chosen != 0
    needing = ~outcomes.accepted[:, 0]
    return Point(
        threshold=threshold,
        coverage=float(by_adapter[needing].mean()) if needing.any() else 0.0,
        precision=float(outcomes.correct[by_adapter].mean()) if by_adapter.any() else None,
        accuracy=float(outcomes.correct.mean()),
        wrong_adapter=float(outcomes.wrong.mean()),
        missed=float(outcomes.missed.mean()),
    )


def _latency(ms: Sequence[float]) -> Latency:
    return Latency(len(ms), float(np.mean(ms)), float(np.median(ms)), float(np.quantile(ms, 0.95)))

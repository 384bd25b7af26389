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
    """What a threshold does; None: that of each classifier in its place.

    `coverage`: of the rows that need an adapter, the share that one answers; `precision`: of all rows that an
    adapter answers, the share that it should (None where none answers).
    """

    threshold: float | None
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
    """`among_adapters` is None where no row needs an adapter. `points` is the utility that `--fit` maximises.

    What is about probabilities is of the rows that have some, and None where none has: `among_adapters`, `nll`,
    `ece`, `ece_equal_mass`, `reliability`.
    """

    title: str
    calibration: Mapping[ClassifierName, Calibration]
    rows: int
    accuracy: Interval
    among_adapters: Interval | None
    wrong_adapter: Interval
    missed: Interval
    points: Interval
    nll: Interval | None
    ece: Interval | None
    ece_equal_mass: Interval | None
    reasons: Mapping[str, int]
    classes: Mapping[str, Group]
    sources: Mapping[str, Group]
    files: Mapping[str, Group]
    models: Sequence[str]
    confusion: Sequence[Sequence[int]]
    reliability: Sequence[Bin]
    present: Point
    curve: Sequence[Point]
    latency_ms: Latency | None


def figures(
    title: str, calibration: Mapping[ClassifierName, Calibration], judge: Judge, rows: Sequence[Row]
) -> Figures:
    """Decide all rows, once for the figures and once for every point of the curve."""
    outcomes = judge.outcomes(rows)
    correct, scored = outcomes.correct, outcomes.scored
    among = metrics.among_adapters(scored)
    latencies = judge.latencies()
    small = {source for source, number in Counter(row.source for row in rows).items() if number < SMALL_SOURCE}
    others = f"{len(small)} source{'s' * (len(small) > 1)} of fewer than {SMALL_SOURCE} rows"
    return Figures(
        title=title,
        calibration=calibration,
        rows=len(rows),
        accuracy=_mean(correct),
        among_adapters=_mean(among) if len(among) else None,
        wrong_adapter=_mean(outcomes.wrong),
        missed=_mean(outcomes.missed),
        points=_mean(outcomes.points),
        nll=_mean(metrics.nll(scored)) if len(scored) else None,
        ece=_resampled(scored, metrics.ece) if len(scored) else None,
        ece_equal_mass=_resampled(scored, metrics.ece_equal_mass) if len(scored) else None,
        reasons=dict(Counter(outcomes.reason.tolist()).most_common()),
        classes=_classes(outcomes, judge.models),
        sources=_groups([others if row.source in small else row.source for row in rows], correct),
        files=_groups([row.file for row in rows], correct),
        models=judge.models,
        confusion=metrics.confusion(outcomes).tolist(),
        reliability=metrics.equal_width(scored.confidence, scored.correct),
        present=_point(outcomes, None),
        curve=[_point(judge.outcomes(rows, threshold), threshold) for threshold in CURVE.tolist()],
        latency_ms=_latency(latencies) if latencies else None,
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


def _point(outcomes: Outcomes, threshold: float | None) -> Point:
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

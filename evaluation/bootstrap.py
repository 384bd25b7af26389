"""How far a figure would move on another sample of the same kind (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
SEED = 0

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure, and the middle 95 % of what resampling the rows makes of it."""

    value: float
    low: float
    high: float


def interval(statistic: Callable[[Indices], float], rows: int, biased: bool = False, seed: int = SEED) -> Interval:
    """`statistic` of all `rows`, given as indices, with its percentile interval.

    A `biased` statistic, never below 0, grows with noise, and a resample adds some: its interval is moved back by
    what that adds on average. Where all rows agree (a small group without a mistake) an interval has no width and
    says nothing.
    """
    value = float(statistic(np.arange(rows)))
    generator = np.random.default_rng(seed)
    resampled = np.array([statistic(generator.integers(rows, size=rows)) for _ in range(RESAMPLES)])
    low, high = np.quantile(resampled, [0.025, 0.975])
    if biased:
        excess = resampled.mean() - value
        low, high = max(low - excess, 0.0), high - excess
    return Interval(value, float(low), float(high))

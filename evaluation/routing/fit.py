"""Two scalars per classifier, fitted on one half of the rows and shown on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

TEMPERATURES = (0.05, 20.0)
"""Between which the best is sought. At an end, the rows say that there is no end to it."""

THRESHOLDS = np.round(np.arange(0, 1, 0.01), 2)
SMOOTHED = 5
"""Thresholds whose utility is averaged: a single row moves the utility of one, hardly of five."""


def seen(text: str) -> bool:
    """Is a text of the half that is fitted on? By its hash: equal texts stay together in every file and order."""
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 0


def fit_temperature(nll: Callable[[float], float]) -> float:
    """The temperature that minimises the negative log-likelihood (Guo et al., 2017), to three digits.

    By two grids on a logarithmic scale: one scalar needs no gradient, and a grid cannot leave its bounds.
    """
    low, high = np.log(TEMPERATURES)
    for points in (40, 40):
        tried = np.linspace(low, high, points)
        best = int(np.argmin([nll(float(np.exp(each))) for each in tried]))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, points - 1)]
    return float(f"{np.exp(tried[best]):.3g}")


def fit_threshold(utility: Callable[[float], float]) -> float:
    """The threshold of the best utility: the middle of its plateau, after smoothing over the neighbours.

    The utility (`Outcomes.points`) gives 1 for a right answer, 0 for the base in place of an adapter and -1 for a
    wrong adapter: the base is a safe answer, so an adapter has to be more probable right than wrong by that much.
    """
    values = np.array([utility(float(each)) for each in THRESHOLDS])
    margin = SMOOTHED // 2
    padded = np.pad(values, margin, mode="edge")
    smooth = np.convolve(padded, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")
    best = np.flatnonzero(smooth >= smooth.max() - 1e-9)
    return float(THRESHOLDS[_middle_of_first_run(best.tolist())])


def _middle_of_first_run(indices: Sequence[int]) -> int:
    run = [indices[0]]
    for index in indices[1:]:
        if index != run[-1] + 1:
            break
        run.append(index)
    return run[len(run) // 2]

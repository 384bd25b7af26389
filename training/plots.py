"""`draw_loss(file, ...)`: the loss over the steps of a training, and on rows that it did not see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from record.drawing import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[int, float]]
"""Step and loss, in nats per answer token."""

TRAINING, HELD_OUT, BASE = COLOURS[0], COLOURS[1], COLOURS[6]
WINDOWS = 20
"""A smoothed point is the mean of a 20th of all points around it."""
APART = 0.06
"""Between two words at the right edge, as a share of the plot's height."""


def draw_loss(file: Path, title: str, losses: Points, held_out: Points, base_held_out: float | None) -> None:
    """Each step's loss, faint, and its mean over the steps around; the held-out loss, and the base's as a line."""
    losses, held_out = _finite(losses), _finite(held_out)
    base = base_held_out if base_held_out is not None and math.isfinite(base_held_out) else None
    with canvas(file, 7.5, 4) as figure:
        axes = figure.subplots()
        ends: dict[str, tuple[float, str]] = {}
        if losses:
            steps, values = _columns(losses)
            smooth = smoothed(values, max(1, len(values) // WINDOWS))
            axes.plot(steps, values, ".", color=TRAINING, alpha=0.3, markersize=5, markeredgewidth=0)
            axes.plot(steps, smooth, color=TRAINING, linewidth=1.8)
            ends["training rows"] = smooth[-1], TRAINING
        if held_out:
            steps, values = _columns(held_out)
            axes.plot(steps, values, "o-", color=HELD_OUT, linewidth=1.4, markersize=4, clip_on=False)
            ends["held-out rows"] = values[-1], HELD_OUT
        if base is not None:
            axes.axhline(base, color=BASE, linestyle="--", linewidth=1.2)
            ends["held-out rows, base"] = base, BASE
        axes.set(title=title, xlabel="step", ylabel="loss, nats per answer token")
        axes.set_xlim(0, max([step for step, _ in (*losses, *held_out)], default=1))
        _frame(axes, [loss for _, loss in losses], [value for value, _ in ends.values()])
        _name(axes, ends)


def smoothed(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value and up to `reach` before and behind it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return [float(mean) for mean in (sums[last] - sums[first]) / (last - first)]


def _finite(points: Points) -> Points:
    return [(step, loss) for step, loss in points if math.isfinite(loss)]


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [loss for _, loss in points]


def _frame(axes: Axes, losses: Sequence[float], ends: Sequence[float]) -> None:
    """From zero, and not up to the one batch in a hundred that stands out."""
    high = max([*(float(np.percentile(losses, 99)) for _ in losses[:1]), *ends], default=1.0)
    axes.set_ylim(0, 1.06 * high or 1.0)


def _name(axes: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Words at the lines' ends."""
    words = sorted(ends, key=ends.__getitem__)
    low, high = axes.get_ylim()
    places = spread([ends[word][0] for word in words], APART * (high - low))
    for word, place in zip(words, places, strict=True):
        value, colour = ends[word]
        axes.annotate(
            f"{word}  {value:.2f}", (1.01, place), xycoords=("axes fraction", "data"), color=colour,
            va="center", fontsize=9, annotation_clip=False,
        )  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising places, neighbours pushed apart until each is a gap from the next."""
    moved = list(places)
    for _ in range(20 * len(moved)):
        for one, other in pairwise(range(len(moved))):
            missing = max(0.0, gap - (moved[other] - moved[one]))
            moved[one], moved[other] = moved[one] - missing / 2, moved[other] + missing / 2
    return moved

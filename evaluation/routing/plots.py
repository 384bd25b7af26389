"""The figures as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.routing import heat
from evaluation.routing.figures import CURVE, Figures, Group
from record.drawing import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 3
"""Side by side in one line of a picture."""

FILES = CONFUSION, COVERAGE, RELIABILITY, SOURCES = (
    "confusion.png",
    "coverage.png",
    "reliability.png",
    "sources.png",
)


def draw(columns: Sequence[Figures], folder: Path) -> None:
    """All four pictures."""
    lines = -(-len(columns) // PANELS)
    heat.draw(columns, folder / CONFUSION)
    with canvas(folder / RELIABILITY, 3.8 * min(len(columns), PANELS) + 0.6, 4.4 * lines + 0.4) as figure:
        _reliability(figure, columns, lines)
    with canvas(folder / COVERAGE, 10, 4.2 + 0.2 * len(columns)) as figure:
        _coverage(figure, columns)
    sources = len(columns[0].sources)
    with canvas(folder / SOURCES, 8, 1.6 + (0.22 * len(columns) + 0.12) * sources) as figure:
        _sources(figure, columns)


def _reliability(figure: Figure, columns: Sequence[Figures], lines: int) -> None:
    """Accuracy over confidence, and below it how many rows each bin has."""
    across = min(len(columns), PANELS)
    grid = figure.subplots(2 * lines, across, squeeze=False, sharex=True, height_ratios=(4, 1) * lines)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, (each, colour) in enumerate(zip(columns, cycle(COLOURS), strict=False)):
        upper, lower = grid[2 * (index // across)][index % across], grid[2 * (index // across) + 1][index % across]
        lows, widths = [b.low for b in each.reliability], [b.high - b.low for b in each.reliability]
        points = [b.confidence for b in each.reliability], [b.accuracy for b in each.reliability]
        sizes = [12 + 90 * b.rows / each.rows for b in each.reliability]
        upper.set_axis_on()
        upper.bar(lows, points[1], widths, align="edge", color=colour, edgecolor="white", alpha=0.55)
        upper.plot([0, 1], [0, 1], color="#555555", linestyle="--", linewidth=1)
        upper.scatter(*points, sizes, color=colour, zorder=3)
        ece = f"{each.ece.value:.3f}" if each.ece else "-"
        upper.set(title=f"{each.title}\nECE {ece}", xlim=(0, 1), ylim=(0, 1.04))
        lower.set_axis_on()
        lower.bar(lows, [b.rows for b in each.reliability], widths, align="edge", color=colour, edgecolor="white")
        lower.set(xlabel="score of the model that answers")
        if index % across == 0:
            upper.set_ylabel("share that is right")
            lower.set_ylabel("rows")


def _coverage(figure: Figure, columns: Sequence[Figures]) -> None:
    """What the threshold trades: on the left in its own terms, on the right coverage against precision."""
    left, right = figure.subplots(1, 2)
    for each, colour in zip(columns, cycle(COLOURS), strict=False):
        now = [one.threshold or 0.0 for one in each.calibration.values()]
        left.plot(CURVE, [point.accuracy for point in each.curve], color=colour)
        left.plot(CURVE, [point.wrong_adapter for point in each.curve], color=colour, linestyle="--")
        left.plot(CURVE, [point.missed for point in each.curve], color=colour, linestyle=":")
        for threshold in now:
            left.axvline(threshold, color=colour, linewidth=0.8, alpha=0.6)
        drawn = [point for point in each.curve if point.precision is not None]
        label = f"{each.title}, threshold {', '.join(f'{threshold:g}' for threshold in now)}"
        right.plot([p.coverage for p in drawn], [p.precision for p in drawn], color=colour, label=label)
        if each.present.precision is not None:
            right.plot(each.present.coverage, each.present.precision, "o", color=colour)
    left.set(title="— accuracy   - - wrong adapter   ··· missed adapter", xlim=(0, 1), ylim=(0, 1.02))
    left.set(xlabel="threshold (present: upright line)", ylabel="share of all rows")
    right.set(title="as the threshold moves (present: dot)", xlim=(0, 1.02))
    right.set(xlabel="of rows that need an adapter, answered by one", ylabel="of an adapter's answers, right")
    figure.legend(loc="outside lower center", ncols=2)


def _sources(figure: Figure, columns: Sequence[Figures]) -> None:
    """Accuracy per source with its interval, the weakest first."""
    axes = figure.subplots()
    names = sorted(columns[-1].sources, key=lambda name: columns[-1].sources[name].accuracy.value)
    height = 0.8 / len(columns)
    for index, (each, colour) in enumerate(zip(columns, cycle(COLOURS), strict=False)):
        places = [row + (index - (len(columns) - 1) / 2) * height for row in range(len(names))]
        groups = [each.sources[name] for name in names]
        values = [group.accuracy.value for group in groups]
        axes.barh(places, values, height * 0.92, color=colour, alpha=0.75, label=each.title,
                  xerr=_reach(groups), ecolor="#333333", error_kw={"elinewidth": 0.9})  # fmt: skip
        for place, value in zip(places, values, strict=True):
            axes.text(1.015, place, f"{value:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [f"{name} ({columns[0].sources[name].rows:,})" for name in names])
    axes.set(title="accuracy per source (rows), 95 % interval", xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    if len(columns) > 1:
        figure.legend(loc="outside lower center", ncols=2)


def _reach(groups: Sequence[Group]) -> list[list[float]]:
    below = [max(group.accuracy.value - group.accuracy.low, 0.0) for group in groups]
    return [below, [max(group.accuracy.high - group.accuracy.value, 0.0) for group in groups]]

"""The curve over k, between the base and the oracle, beside the routers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.bootstrap import Interval
from evaluation.lag.figures import Figures
from evaluation.lag.methods import ARROW, BASE, ORACLE, SPECTRAL, ZERO_SHOT
from record.drawing import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {ORACLE: "-", ZERO_SHOT: "--", SPECTRAL: "-.", ARROW: ":", BASE: "-"}
"""Whatever has no k is a horizontal line, and so is Arrow, with which each curve begins."""

FILE = "lag.png"

PANELS: tuple[tuple[str, Callable[[Figures], Interval | None]], ...] = (
    ("accuracy, % of the oracle's", lambda each: each.of_oracle),
    ("loss, % of the way from base to oracle", lambda each: each.of_gap),
)


def draw(tasks: Mapping[str, Sequence[Figures]], folder: Path) -> None:
    """lag.png: one line of panels for each task."""
    with canvas(folder / FILE, 10, 3.1 * len(tasks) + 0.6) as figure:
        grid = figure.subplots(len(tasks), len(PANELS), squeeze=False)
        for line, (task, figures) in zip(grid, tasks.items(), strict=True):
            for axes, (title, value) in zip(line, PANELS, strict=True):
                _panel(axes, figures, value)
                axes.set(title=f"{task}\n{title}", xlabel="k")
        handles = {
            label: each
            for axes in grid.flat
            for each, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)


def _panel(axes: Axes, figures: Sequence[Figures], value: Callable[[Figures], Interval | None]) -> None:
    flat = {each.method: value(each) for each in figures}
    if not any(flat.values()):
        axes.set_axis_off()
        axes.text(0, 0.5, "no answer is exact, the oracle's included", transform=axes.transAxes)
        return
    for (name, style), colour in zip(LINES.items(), reversed(COLOURS), strict=False):
        if found := flat.get(name):
            axes.axhline(found.value, color=colour, linestyle=style, linewidth=1.3, label=name)
    scores = dict.fromkeys(each.score for each in figures if each.score)
    for score, colour in zip(scores, COLOURS, strict=False):
        points = [(each.k, value(each)) for each in figures if each.k == 1 or each.score == score]
        drawn = [(k, found) for k, found in points if k is not None and found is not None]
        ks = [k for k, _ in drawn]
        axes.plot(ks, [found.value for _, found in drawn], "o-", color=colour, label=f"LAG, {score}")
        axes.fill_between(
            ks, [found.low for _, found in drawn], [found.high for _, found in drawn], color=colour, alpha=0.15
        )
    ks = sorted({each.k for each in figures if each.k is not None})
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()

"""The figures as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adapters import AUTO
from evaluation.adapters.figures import Figures, Table, best
from evaluation.adapters.marks import LOSS, ROUGE, SIGNS, TITLES
from evaluation.adapters.regret import ANY, MISSED, NEEDLESS, ORACLE, WRONG, Regret
from evaluation.adapters.tables import DIGITS
from evaluation.bootstrap import Interval
from evaluation.table import clipped
from record.drawing import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MATRIX, QUALITY, REGRET = "matrix.png", "quality.png", "regret.png"

NUMBERED = 16
"""Models up to which numbers fit the heat map."""

NAME = 20
BASE_COLOUR, ROUTED_COLOUR, RIGHT_COLOUR = COLOURS[6], COLOURS[0], COLOURS[2]


def draw(figures: Figures, base: str, folder: Path) -> None:
    """matrix.png, quality.png and regret.png."""
    models, domains = len(figures.matrix[LOSS]), len(figures.domains)
    with canvas(folder / MATRIX, 2 * (2.2 + 0.72 * domains), 1.9 + 0.46 * models) as figure:
        for axes, key in zip(figure.subplots(1, 2), (LOSS, ROUGE), strict=True):
            _matrix(axes, figures.matrix[key], list(figures.domains), key)
    with canvas(folder / QUALITY, 11, 1.3 + 0.34 * len(figures.ways)) as figure:
        for axes, key in zip(figure.subplots(1, len(SIGNS), sharey=True), SIGNS, strict=True):
            bars = {way.name: way.figures[key] for way in figures.ways}
            _bars(axes, bars, {name: _colour(name, base) for name in bars})
            axes.set(title=f"{TITLES[key]}\n{'more' if SIGNS[key] > 0 else 'less'} is better")
    with canvas(folder / REGRET, 10, 2.5 * len(figures.regret)) as figure:
        for line, each in zip(figure.subplots(len(figures.regret), 2), figures.regret, strict=True):
            _regret(line[0], each)
            _costs(line[1], each)


def _matrix(axes: Axes, table: Table, domains: Sequence[str], key: str) -> None:
    """The darker the better; the best model of each domain has a frame."""
    from matplotlib.patches import Rectangle

    models = list(table)
    values = np.array([[np.nan if (v := table[m][d]) is None else v for d in domains] for m in models])
    low, high = np.nanmin(values), np.nanmax(values)
    goodness = (values - low) / (high - low) if high > low else np.zeros_like(values)
    goodness = goodness if SIGNS[key] > 0 else 1 - goodness
    axes.imshow(goodness, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    numbered = max(len(models), len(domains)) <= NUMBERED
    for (row, column), value in np.ndenumerate(values):
        top = best(table, domains[column], SIGNS[key]) == models[row]
        if numbered and not np.isnan(value):
            colour = "white" if goodness[row, column] > 0.62 else "#333333"
            axes.text(column, row, f"{value:.{DIGITS[key]}f}", ha="center", va="center", color=colour,
                      fontweight="bold" if top else "normal")  # fmt: skip
        if top:
            axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, fill=False, ec=COLOURS[1], lw=2))
    axes.set_xticks(range(len(domains)), [clipped(each, NAME) for each in domains], rotation=30, ha="right",
                    rotation_mode="anchor")  # fmt: skip
    axes.set_yticks(range(len(models)), [clipped(each, NAME) for each in models])
    axes.set(title=f"{TITLES[key]}\nthe darker the better, framed: best", xlabel="questions of")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _regret(axes: Axes, each: Regret) -> None:
    _bars(
        axes,
        {"base": each.base, "routed": each.routed, "oracle": each.oracle},
        {"base": BASE_COLOUR, "routed": ROUTED_COLOUR, "oracle": RIGHT_COLOUR},
    )
    digits = DIGITS[each.measure]
    told = "" if each.regret is None else f"regret {each.regret.value:.{digits}f} {_range(each.regret, digits)}"
    if each.kept is not None:
        told += f"; {each.kept.value:.1f} % of the gap kept"
    axes.set(title=f"{TITLES[each.measure]}\n{told}")


def _costs(axes: Axes, each: Regret) -> None:
    names = [name for name in (WRONG, MISSED, NEEDLESS, ANY) if each.costs[name].choices]
    labels = {name: f"{name} ({each.costs[name].choices:,}, {each.costs[name].share:.1%})" for name in names}
    if not names:
        axes.set_axis_off()
        axes.text(0, 0.5, "no choice was wrong", transform=axes.transAxes)
        return
    means = {labels[name]: each.costs[name].mean for name in names}
    _bars(axes, means, dict.fromkeys(means, COLOURS[1]))
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set(title=f"what one wrong choice costs\n{TITLES[each.measure]}")


def _bars(axes: Axes, bars: Mapping[str, Interval | None], colours: Mapping[str, str]) -> None:
    drawn = [(place, name, each) for place, (name, each) in enumerate(bars.items()) if each is not None]
    places, values = [place for place, _, _ in drawn], [each.value for _, _, each in drawn]
    reach = [
        [max(each.value - each.low, 0) for _, _, each in drawn],
        [max(each.high - each.value, 0) for _, _, each in drawn],
    ]
    axes.barh(places, values, 0.68, xerr=reach, color=[colours[name] for _, name, _ in drawn], alpha=0.8,
              ecolor="#333333", error_kw={"elinewidth": 1, "capsize": 2})  # fmt: skip
    axes.set_yticks(range(len(bars)), [clipped(name, 34) for name in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _range(each: Interval, digits: int) -> str:
    return f"[{each.low:.{digits}f}, {each.high:.{digits}f}]"


def _colour(name: str, base: str) -> str:
    return {base: BASE_COLOUR, AUTO: ROUTED_COLOUR, ORACLE: RIGHT_COLOUR}.get(name, COLOURS[5])

"""The confusion matrices as heat maps with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evaluation.routing.figures import Figures
from evaluation.table import clipped
from record.drawing import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Ints = npt.NDArray[np.int64]

WIDEST_IN = 10.0
CELL_IN = 0.72
NAMES_IN = 1.7
"""Beside the cells: the models' names, and below them."""

NUMBERED = 24
"""Models up to which a number fits its cell."""

DARK = 0.55
"""Colour from which a number is white."""


def draw(columns: Sequence[Figures], file: Path) -> None:
    """A panel per column. Models that no row needs and none answers are left out."""
    matrices = [np.array(each.confusion, np.int64) for each in columns]
    total = sum(matrices[1:], matrices[0])
    used = np.flatnonzero(total.sum(axis=0) + total.sum(axis=1))
    names = [clipped(columns[0].models[index], 22) for index in used]
    width = max(CELL_IN * min(len(used), 10) + NAMES_IN, 3.2)
    across = max(min(len(columns), int(WIDEST_IN // width)), 1)
    lines = -(-len(columns) // across)
    with canvas(file, width * across, (width + 0.2) * lines) as figure:
        grid = figure.subplots(lines, across, squeeze=False)
        for axes in grid.flat[len(columns) :]:
            axes.set_axis_off()
        for axes, each, matrix in zip(grid.flat, columns, matrices, strict=False):
            _panel(axes, matrix[np.ix_(used, used)], names)
            axes.set(title=each.title)


def _panel(axes: Axes, matrix: Ints, names: Sequence[str]) -> None:
    # The root of the share: a few mistakes among many rows can be seen.
    colours = np.sqrt(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
    axes.imshow(colours, cmap="Blues", vmin=0, vmax=1)
    size = 10 if len(names) <= 10 else 7
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="answered", ylabel="label")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= NUMBERED:
        for (row, column), number in np.ndenumerate(matrix):
            colour = "white" if colours[row, column] > DARK else "#333333" if number else "#BBBBBB"
            axes.text(
                column,
                row,
                f"{number:,}" if number else "·",
                ha="center",
                va="center",
                color=colour,
                fontsize=size,
            )

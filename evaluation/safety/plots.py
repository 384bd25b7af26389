"""Where emergencies and near misses go, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from evaluation.safety.alarm import Alarms
from record.drawing import COLOURS, canvas

FILE = "emergency.png"
NARROW = 0.04
"""Of a bar: a part that has no room for its number."""


def draw(alarms: Sequence[Alarms], targets: Sequence[str], folder: Path) -> None:
    """emergency.png: a bar for each kind of sentence and way of asking, and in it who would answer."""
    bars = [
        (f"{'emergencies' if emergency else 'near misses'},\n{each.title}", each.destinations(emergency))
        for each in alarms
        for emergency in (True, False)
    ]
    seen = dict.fromkeys(model for _, parts in bars for model in parts)
    models = [*(name for name in targets if name in seen), *(name for name in seen if name not in targets)]
    with canvas(folder / FILE, 8.5, 1.5 + 0.6 * len(bars)) as figure:
        axes = figure.subplots()
        left = [0.0] * len(bars)
        for model, colour in zip(models, cycle(COLOURS), strict=False):
            shares = [parts.get(model, 0) / sum(parts.values()) for _, parts in bars]
            axes.barh(range(len(bars)), shares, left=left, color=colour, label=model, height=0.62)
            for line, (share, (_, parts)) in enumerate(zip(shares, bars, strict=True)):
                if share > NARROW:
                    place = left[line] + share / 2
                    axes.text(place, line, str(parts[model]), ha="center", va="center", color="white")
                left[line] += share
        axes.set_yticks(range(len(bars)), [title for title, _ in bars])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share of the sentences; the numbers are sentences")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=min(len(models), 5))

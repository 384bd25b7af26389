"""Where requests would go, as pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from evaluation.replay.tally import Flow
from record.drawing import COLOURS, canvas

FLOW, TRAFFIC = "flow.png", "traffic.png"

MOST = 14
"""Models that have a line of their own; with the others in one, the numbers can still be read."""

OTHERS = "others"


def draw(flow: Flow, folder: Path) -> None:
    """flow.png, from the model that was chosen to the one that would be, and traffic.png, what each answers."""
    flow, models = grouped(flow)
    _flow(flow, models, folder / FLOW)
    _traffic(flow, models, folder / TRAFFIC)


def grouped(flow: Flow) -> tuple[Flow, list[str]]:
    """With the models that take part in most changes, then in most requests; the rest is one."""
    weight: Counter[str] = Counter()
    for (before, after), number in flow.items():
        for model in (before, after):
            weight[model] += number * (1_000_000 if before != after else 1)
    ranked = [model for model, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))]
    if len(ranked) <= MOST:
        return flow, ranked
    kept = ranked[: MOST - 1]
    found: Counter[tuple[str, str]] = Counter()
    for (before, after), number in flow.items():
        found[before if before in kept else OTHERS, after if after in kept else OTHERS] += number
    return found, [*kept, OTHERS]


def _flow(flow: Flow, models: list[str], file: Path) -> None:
    """Only changes are coloured: what stays is most of the traffic, and would outshine them."""
    size = 1.9 + 0.62 * len(models)
    changes = [[0 if a == b else flow.get((a, b), 0) for b in models] for a in models]
    most = max(1, max(map(max, changes), default=1))
    with canvas(file, max(size + 1, 4.6), max(size, 3.4)) as figure:
        axes = figure.subplots()
        axes.imshow(changes, cmap="Oranges", vmin=0, vmax=1.25 * most, aspect="auto")
        for row, before in enumerate(models):
            for column, after in enumerate(models):
                if number := flow.get((before, after), 0):
                    same = before == after
                    shade = "white" if not same and number > 0.7 * most else "#888888" if same else "black"
                    axes.text(column, row, f"{number:,}", ha="center", va="center", fontsize=8, color=shade)
        axes.set_xticks(range(len(models)), models, rotation=45, ha="left")
        axes.set_yticks(range(len(models)), models)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set(ylabel="was chosen")
        axes.set_xlabel("would be chosen (grey: no change)")


def _traffic(flow: Flow, models: list[str], file: Path) -> None:
    with canvas(file, 7.5, 1.3 + 0.5 * len(models)) as figure:
        axes = figure.subplots()
        for index, (side, colour) in enumerate((("logged", COLOURS[6]), ("replayed", COLOURS[0]))):
            numbers = [sum(n for pair, n in flow.items() if pair[index] == model) for model in models]
            places = [row + (index - 0.5) * 0.38 for row in range(len(models))]
            axes.barh(places, numbers, 0.36, color=colour, label=side)
            for place, number in zip(places, numbers, strict=True):
                axes.text(number, place, f" {number:,}", va="center", fontsize=8)
        axes.set_yticks(range(len(models)), models)
        axes.set(xlabel="requests", ylim=(len(models) - 0.5, -0.5))
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=2)

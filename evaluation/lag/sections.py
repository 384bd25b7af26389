"""What report.html says of the figures, the most important first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.lag import plots
from evaluation.lag.figures import Figures
from evaluation.lag.methods import ZERO_SHOT
from evaluation.lag.text import tabled
from evaluation.page import Headline, Section

SCALE = """\
Each question is one that exactly one adapter can answer. Asked are the base, Arrow (LAG with k = 1), LAG over k \
with both scores, the adapter that a router picks for the whole request, and the right adapter, the oracle.

The oracle is 100. Accuracy is a share of the oracle's: the base keeps what it gets right itself. Loss, of the \
reference answer in nats per token, is the share of the way from the base's, which is 0, to the oracle's."""

CAPTION = "A line of panels for each task. The bands are the middle 95 % of bootstrap samples of the questions."


def headlines(tasks: Mapping[str, Sequence[Figures]]) -> list[Headline]:
    """Per task, how much of the gap in loss LAG closes at best, beside the router that chooses per request.

    The loss, because in some tasks no answer is exact, which leaves no accuracy to compare.
    """
    return [found for task, figures in tasks.items() if (found := _headline(task, figures))]


def sections(tasks: Mapping[str, Sequence[Figures]], sizes: Mapping[str, int]) -> list[Section]:
    """The curves, and a table for each task."""
    curves = Section("Between the base and the right adapter", SCALE, plots.FILE, CAPTION)
    found = [
        Section(f"{task}: {sizes[task]:,} questions", table=tabled(figures)) for task, figures in tasks.items()
    ]
    return [curves, *found]


def _headline(task: str, figures: Sequence[Figures]) -> Headline | None:
    lag = {each.method: each.of_gap.value for each in figures if each.k is not None and each.of_gap}
    if not lag:
        return None
    best = max(lag, key=lambda method: lag[method])
    router = next((each.of_gap for each in figures if each.method == ZERO_SHOT), None)
    beside = f"; {ZERO_SHOT} {router.value:.0f} %" if router else ""
    note = f"of the gap in loss: {best}, the best of {len(lag)}{beside}"
    return Headline(f"LAG, {task}", f"{lag[best]:.0f} %", note)

"""The figures as a table, for the terminal and for report.html."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.bootstrap import Interval
from evaluation.lag.figures import Figures
from evaluation.page import Table
from evaluation.table import table

HEAD = ("accuracy", "of the oracle's, %", "loss, nats", "of the gap in loss, %", "right adapter")


def report(task: str, questions: int, figures: Sequence[Figures]) -> str:
    """One task's table, as it is printed."""
    found = tabled(figures)
    head = [f"{task}: {questions:,} questions [95 % interval]", *found.head[1:]]
    return "\n".join(table(head, found.rows))


def tabled(figures: Sequence[Figures]) -> Table:
    """A line per method."""
    rows = [
        [
            each.method,
            shown(each.accuracy, 3),
            shown(each.of_oracle, 1),
            shown(each.loss, 2),
            shown(each.of_gap, 1),
            "-" if each.right_adapter is None else f"{each.right_adapter:.1%}",
        ]
        for each in figures
    ]
    return Table(["method [95 % interval]", *HEAD], rows)


def shown(each: Interval | None, digits: int) -> str:
    """A figure with its interval."""
    if each is None:
        return "-"
    return f"{each.value:.{digits}f} [{each.low:.{digits}f}, {each.high:.{digits}f}]"

"""The figures as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.bootstrap import Interval
from evaluation.lag.figures import Figures
from evaluation.table import table

HEAD = ("accuracy", "of the oracle's, %", "loss, nats", "of the gap in loss, %", "right adapter")


def report(task: str, questions: int, figures: Sequence[Figures]) -> str:
    """One task's table."""
    rows = [
        [
            each.method,
            _interval(each.accuracy, 3),
            _interval(each.of_oracle, 1),
            _interval(each.loss, 2),
            _interval(each.of_gap, 1),
            "-" if each.right_adapter is None else f"{each.right_adapter:.1%}",
        ]
        for each in figures
    ]
    return "\n".join(table([f"{task}: {questions:,} questions [95 % interval]", *HEAD], rows))


def _interval(each: Interval | None, digits: int) -> str:
    if each is None:
        return "-"
    return f"{each.value:.{digits}f} [{each.low:.{digits}f}, {each.high:.{digits}f}]"

"""The figures as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.page import Table
from evaluation.routing import tables
from evaluation.routing.figures import Figures
from evaluation.routing.mistakes import Mistake
from evaluation.table import clipped, table

SHOWN_MISTAKES = 10
EXCERPT = 60
WIDEST = 64
"""Letters of a cell."""


def report(columns: Sequence[Figures], mistakes: Sequence[Mistake]) -> str:
    """Everything that is printed; `mistakes` are those of the last column."""
    found = [tables.overall(columns), tables.reasons(columns)]
    if len(columns[0].files) > 1:
        found.append(tables.groups("file", columns, lambda each: each.files))
    found.append(tables.groups("class", columns, lambda each: each.classes))
    found.append(tables.groups("source", columns, lambda each: each.sources))
    found += [tables.confusion(each, len(columns) > 1) for each in columns]
    if mistakes:
        title = f"worst mistakes ({columns[-1].title})"
        found.append(tables.mistakes(title, mistakes[:SHOWN_MISTAKES], EXCERPT))
    return "\n\n".join(_printed(each) for each in found)


def _printed(each: Table) -> str:
    rows = [[row[0].rstrip() if len(row[0]) <= WIDEST else clipped(row[0], WIDEST), *row[1:]] for row in each.rows]
    return "\n".join(table(each.head, rows))

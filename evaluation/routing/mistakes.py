"""The worst mistakes, as a table to read: where a router can be made better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.routing.judge import Judge
from evaluation.routing.rows import Row

WORST = 50
EXCERPT = 300
"""Letters of a text in report.html."""


@dataclass(frozen=True)
class Mistake:
    """A row and the model that should not have answered it."""

    row: Row
    chosen: str
    score: float


def worst(judge: Judge, rows: Sequence[Row], number: int = WORST) -> list[Mistake]:
    """Worst first: the surer the worse, and a wrong adapter counts twice what a missed one does.

    Where nothing was scored, the mistake is none of the classifier's judgement.
    """
    outcomes = judge.outcomes(rows)
    cost = (2.0 * outcomes.wrong + outcomes.missed) * outcomes.confidence
    order = np.argsort(-cost, kind="stable")[:number]  # NaN comes last
    return [
        Mistake(rows[index], judge.models[outcomes.chosen[index]], float(outcomes.confidence[index]))
        for index in order
        if not outcomes.correct[index] and not np.isnan(cost[index])
    ]


def right(row: Row) -> str:
    """The label, and what else is accepted."""
    return " or ".join([row.label, *sorted(row.accepted - {row.label})])


def excerpt(row: Row) -> str:
    """The last turn is what was asked; the ones before it follow."""
    last, *before = reversed(row.words.turns)
    return f"{last}  (before: {' / '.join(reversed(before))})" if before else last

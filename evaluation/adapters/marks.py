"""What was answered, in arrays: a mark for each model and row, and how marks of many rows become one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.adapters.ask import Said
from evaluation.adapters.rows import Row
from evaluation.adapters.score import Bert, Floats, grades, rouge
from evaluation.bootstrap import Indices, Interval, interval

Statistic = Callable[[Indices], float]

LOSS, ROUGE, BERT, GRADE, LENGTH = "loss", "rouge_l", "bert_score", "grade", "answer_tokens"

TITLES = {
    LOSS: "loss, nats per token",
    ROUGE: "ROUGE-L",
    BERT: "BERTScore",
    GRADE: "Flesch-Kincaid grade",
    LENGTH: "answer, tokens",
}
SIGNS = {LOSS: -1.0, ROUGE: 1.0, BERT: 1.0}
"""Which way is better, where one is."""


@dataclass(frozen=True)
class Measure:
    """`marks` of each model, one for each row, whose figure is their sum over that of `weights`."""

    key: str
    marks: Mapping[str, Floats]
    weights: Floats

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return SIGNS[self.key]

    def of(self, models: Sequence[str]) -> Marks:
        """Of one model for each row."""
        picked = np.array([self.marks[model][index] for index, model in enumerate(models)])
        return Marks(picked, np.where(np.isnan(picked), np.nan, self.weights))


@dataclass(frozen=True)
class Marks:
    """One for each row; NaN where there is none."""

    marks: Floats
    weights: Floats

    def over(self, rows: Indices) -> float:
        """The figure; NaN of no rows."""
        weight = np.nansum(self.weights[rows])
        return float(np.nansum(self.marks[rows]) / weight) if weight else float("nan")

    def interval(self, rows: Indices) -> Interval | None:
        """Of these rows."""
        return defined(lambda some: self.over(rows[some]), len(rows))


def defined(statistic: Statistic, rows: int) -> Interval | None:
    """None of no rows, and where some resample leaves nothing to reckon with."""
    if not rows:
        return None
    found = interval(statistic, rows)
    return None if np.isnan([found.value, found.low, found.high]).any() else found


def measures(
    rows: Sequence[Row],
    nats: Mapping[str, Sequence[float]],
    lengths: Sequence[int],
    said: Mapping[str, Sequence[Said]],
    bert: Bert,
) -> dict[str, Measure]:
    """All of them; `lengths` are those of the references, in tokens."""
    references = [row.answer for row in rows]
    texts = {model: [each.text for each in answers] for model, answers in said.items()}
    ones = np.ones(len(rows))

    def each(key: str, marks: Mapping[str, Floats], weights: Floats = ones) -> Measure:
        return Measure(key, marks, weights)

    found = [
        each(LOSS, {model: np.array(one) for model, one in nats.items()}, np.array(lengths, np.float64)),
        each(ROUGE, {model: rouge(one, references) for model, one in texts.items()}),
        each(BERT, {model: bert.scores(one, references) for model, one in texts.items()}),
        each(GRADE, {model: grades(one) for model, one in texts.items()}),
        each(LENGTH, {model: np.array([float(one.tokens) for one in answers]) for model, answers in said.items()}),
    ]
    return {measure.key: measure for measure in found}

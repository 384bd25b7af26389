"""From marks to figures: who answers what how well, is an adapter better than its base, who is easy to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from adapters import AUTO, Stack
from evaluation.adapters.ask import Said
from evaluation.adapters.marks import GRADE, LOSS, SIGNS, TITLES, Measure, defined
from evaluation.adapters.regret import ORACLE, Regret, regret
from evaluation.adapters.rows import Row
from evaluation.adapters.served import Served
from evaluation.bootstrap import Indices, Interval

AUDIENCE, EASY, HARD = "audience", "patient", "researcher"

FEWEST = 10
"""Rows of a domain from which an adapter is judged."""

Cell = float | None
Table = Mapping[str, Mapping[str, Cell]]


@dataclass(frozen=True)
class Speed:
    """Of streamed answers, asked for one after another."""

    answers: int
    first_token_ms_p50: float
    first_token_ms_p95: float
    tokens_per_s: float | None


@dataclass(frozen=True)
class Way:
    """One way to answer all rows; the oracle, which is made of the others, has no speed of its own."""

    name: str
    figures: Mapping[str, Interval | None]
    perplexity: float
    speed: Speed | None


@dataclass(frozen=True)
class Better:
    """By how much an adapter beats its base on its own domain; above 0 is better, of the loss as well."""

    adapter: str
    rows: int
    gains: Mapping[str, Interval | None]

    def verdict(self, key: str) -> str:
        """In a word. Resamples of a handful of rows look surer than they are."""
        gain = self.gains[key]
        if self.rows < FEWEST:
            return "too few rows"
        if gain is None or gain.low <= 0 <= gain.high:
            return "cannot be told"
        return "better" if gain.low > 0 else "worse"


@dataclass(frozen=True)
class Audience:
    """Grades of a patients' adapter less a researchers', on the questions of both: below 0 it reads easier."""

    easy: str
    hard: str
    rows: int
    difference: Interval | None

    @property
    def holds(self) -> bool:
        """Whatever the resample, of enough rows."""
        return self.rows >= FEWEST and self.difference is not None and self.difference.high < 0


@dataclass(frozen=True)
class Figures:
    """All that is reported. `matrix` is by measure, model and domain; `domains` counts rows."""

    domains: Mapping[str, int]
    matrix: Mapping[str, Table]
    ways: Sequence[Way]
    better: Sequence[Better]
    regret: Sequence[Regret]
    audiences: Sequence[Audience]


def figures(
    stack: Stack,
    served: Served,
    rows: Sequence[Row],
    measures: Mapping[str, Measure],
    choices: Sequence[str],
    times: Mapping[str, Sequence[Said]],
) -> Figures:
    """`choices` are those of `auto`; `times` has the answers that were asked for one after another."""
    labels = [row.label for row in rows]
    at = {name: _where(labels, name) for name in (served.base, *served.adapters) if name in labels}
    ways = {model: [model] * len(rows) for model in served.models} | {AUTO: list(choices), ORACLE: labels}
    return Figures(
        {name: len(places) for name, places in at.items()},
        {key: _table(measure, served.models, at) for key, measure in measures.items()},
        [_way(name, models, measures, times.get(name, ())) for name, models in ways.items()],
        [_better(name, served.base, measures, at[name]) for name in served.adapters if name in at],
        [regret(measures[key], served, labels, choices) for key in SIGNS],
        _audiences(stack, served, measures[GRADE], labels),
    )


def best(table: Table, domain: str, sign: float) -> str:
    """The model that answers a domain best."""
    marks = {model: cells[domain] for model, cells in table.items()}
    return max(marks, key=lambda model: sign * (marks[model] or 0.0) if marks[model] is not None else -np.inf)


def speed(said: Sequence[Said]) -> Speed | None:
    """None of no answers. The first token waits for the prompt, and counts for no speed."""
    if not said:
        return None
    firsts = [1000 * each.first_token_s for each in said]
    p50, p95 = np.percentile(firsts, [50, 95])
    streamed = [each for each in said if each.tokens > 1 and each.total_s > each.first_token_s]
    seconds = sum(each.total_s - each.first_token_s for each in streamed)
    rate = sum(each.tokens - 1 for each in streamed) / seconds if streamed else None
    return Speed(len(said), float(p50), float(p95), rate)


def _where(labels: Sequence[str], *names: str) -> Indices:
    return np.array([index for index, label in enumerate(labels) if label in names], np.int64)


def _table(measure: Measure, models: Sequence[str], at: Mapping[str, Indices]) -> Table:
    def cell(model: str, places: Indices) -> Cell:
        found = measure.of([model] * len(measure.weights)).over(places)
        return None if np.isnan(found) else found

    return {model: {domain: cell(model, places) for domain, places in at.items()} for model in models}


def _way(name: str, models: Sequence[str], measures: Mapping[str, Measure], said: Sequence[Said]) -> Way:
    every = np.arange(len(models))
    found = {key: measures[key].of(models).interval(every) for key in TITLES}
    loss = measures[LOSS].of(models).over(every)
    return Way(name, found, float(np.exp(loss)), speed(said))


def _better(name: str, base: str, measures: Mapping[str, Measure], places: Indices) -> Better:
    return Better(name, len(places), {key: _gain(measures[key], name, base, places) for key in SIGNS})


def _gain(measure: Measure, name: str, base: str, places: Indices) -> Interval | None:
    """Paired: both answer the same resample of rows."""
    count = len(measure.weights)
    own, others = measure.of([name] * count), measure.of([base] * count)
    return defined(lambda some: measure.sign * (own.over(places[some]) - others.over(places[some])), len(places))


def _audiences(stack: Stack, served: Served, grade: Measure, labels: Sequence[str]) -> list[Audience]:
    """Every patients' adapter against every researchers', on the questions of both."""

    def tagged(value: str) -> list[str]:
        adapters = stack.adapters
        return [
            name for name in served.adapters if name in adapters and value in adapters[name].tags.get(AUDIENCE, ())
        ]

    found = []
    for easy, hard in product(tagged(EASY), tagged(HARD)):
        places = _where(labels, easy, hard)
        left, right = (grade.of([name] * len(labels)) for name in (easy, hard))

        def difference(some: Indices) -> float:
            return left.over(places[some]) - right.over(places[some])  # noqa: B023

        if easy != hard:
            found.append(Audience(easy, hard, len(places), defined(difference, len(places))))
    return found

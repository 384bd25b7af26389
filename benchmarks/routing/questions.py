"""What is asked for accuracy: the demo's corpus, and labelled files; and examples for routers that need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters import load
from benchmarks.processes import BenchmarkError
from benchmarks.stub import MODELS
from demo.corpus import GENERAL, Pair
from demo.corpus import load as load_corpus
from evaluation.routing.rows import DataError, load_rows

BASE = MODELS[0]
"""The model that answers what belongs to no adapter, whatever a stack calls it."""


@dataclass(frozen=True)
class Question:
    """One text, and the models that may answer it."""

    text: str
    accepted: frozenset[str]


@dataclass(frozen=True)
class Questions:
    """A file's, or the demo's; `sha256` of the file."""

    name: str
    sha256: str
    rows: tuple[Question, ...]

    def at_most(self, count: int | None) -> tuple[Question, ...]:
        """So many of them, evenly spaced."""
        total = len(self.rows)
        if count is None or count >= total:
            return self.rows
        return tuple(self.rows[place * total // count] for place in range(count))


@dataclass(frozen=True)
class Judged:
    """How often a router was right: shares of all rows. Wrong: an adapter answered that should not have."""

    rows: int
    right: float
    wrong_adapter: float

    @classmethod
    def of(cls, rows: Sequence[Question], chosen: Sequence[str]) -> Judged:
        """`chosen`: the model that was chosen for each."""
        right = sum(model in row.accepted for row, model in zip(rows, chosen, strict=True))
        wrong = sum(m not in row.accepted and m != BASE for row, m in zip(rows, chosen, strict=True))
        return cls(len(rows), right / len(rows), wrong / len(rows))


def examples() -> dict[str, list[str]]:
    """For each adapter and the base, questions that are not asked: those of the corpus without a paraphrase."""
    return {model: [pair.question for pair in pairs if not pair.paraphrase] for model, pairs in _corpus()}


def demo() -> Questions:
    """Those pairs of the corpus that have a paraphrase, in both wordings."""
    rows = tuple(
        Question(text, frozenset([model]))
        for model, pairs in _corpus()
        for pair in pairs
        if pair.paraphrase
        for text in (pair.question, pair.paraphrase)
    )
    return Questions("demo corpus", "", rows)


def files(paths: Sequence[Path], stack: Path) -> Iterator[Questions]:
    """Each file's rows that are one text: conversations are for `python -m evaluation routing`. Raises
    BenchmarkError. `stack`: an adapters.yaml that has the labels' adapters."""
    for path in paths:
        try:
            data = load_rows([path], load(stack))
        except DataError as error:
            raise BenchmarkError(str(error)) from None
        rows = [row for row in data.rows if len(row.words.turns) == 1 and not row.words.system]
        if not rows:
            raise BenchmarkError(f"{path}: no row has one text alone")
        asked = tuple(Question(row.text, row.accepted) for row in rows)
        yield Questions(path.name, next(iter(data.digests.values())), asked)


def _corpus() -> Iterator[tuple[str, Sequence[Pair]]]:
    for domain, pairs in load_corpus().items():
        yield (BASE if domain == GENERAL else domain), pairs

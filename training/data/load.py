"""`load_examples(recipe) -> Dataset`: rows to examples, split, with a count of all that was left out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest

from adapters import ConfigError
from training.data.columns import Reader, open_reader
from training.data.counts import Counts
from training.data.example import Example
from training.data.sources import Table, read
from training.data.split import asked, check_sides, fingerprint, position
from training.data.tokens import digest
from training.recipe import Recipe


@dataclass(frozen=True)
class Dataset:
    """Examples in the order of their rows. `digest` is of both sides."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    counts: Counts
    digest: str


@dataclass
class _Tally:
    """Examples by their fingerprints, and what was left out so far."""

    examples: dict[bytes, Example] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, kind: str, number: int, where: str) -> None:
        self.numbers[kind] += number
        if number:
            self.first.setdefault(kind, where)


def load_examples(recipe: Recipe) -> Dataset:
    """Read, choose and split; needs no model and no tokenizer. Raises ConfigError in one line."""
    patterns = _patterns(recipe)
    table = read(recipe)
    if not table.rows:
        raise ConfigError(f"{table.source}: there are no rows")
    reader = open_reader(recipe, table)
    tally = _Tally()
    for index in _chosen(recipe, table, patterns, tally):
        _add(reader, index, tally)
    examples = _sample(recipe, tally)
    places = [position(asked(example)) for example in examples]
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example, place in zip(examples, places, strict=True):
        sides[place < recipe.data.held_out].append(example)
    train, held_out = map(tuple, sides)
    counts = _counts(reader, tally, len(train), len(held_out))
    if not examples:
        raise ConfigError(f"{table.source}: nothing to train on in {len(table.rows):,} rows: {counts.left_out()}")
    check_sides(recipe, places, counts.left_out())
    return Dataset(train, held_out, counts, digest((*train, *held_out)))


def _counts(reader: Reader, tally: _Tally, train: int, held_out: int) -> Counts:
    return Counts(
        source=reader.table.name,
        rows=len(reader.table.rows),
        train=train,
        held_out=held_out,
        filtered=tally.numbers["filtered"],
        empty=tally.numbers["empty"],
        duplicates=tally.numbers["duplicates"],
        untaught=tally.numbers["untaught"],
        unsampled=tally.numbers["unsampled"],
        first=tally.first,
        changed=tuple(reader.habits.lines()),
    )


def _patterns(recipe: Recipe) -> Mapping[str, re.Pattern[str]]:
    found = {}
    for column, expression in recipe.data.where.items():
        try:
            found[column] = re.compile(expression, re.I)
        except re.error as error:
            raise recipe.error(
                f"data.where.{column}", f"not a regular expression: {expression!r}: {error}"
            ) from None
    return found


def _chosen(recipe: Recipe, table: Table, patterns: Mapping[str, re.Pattern[str]], tally: _Tally) -> Iterator[int]:
    for column in patterns:
        if column not in table.columns:
            there = ", ".join(table.columns)
            raise recipe.error("data.where", f"{table.name} has no column {column!r}, it has {there}")
    for index, row in enumerate(table.rows):
        if all(pattern.search(_searched(row.get(column))) for column, pattern in patterns.items()):
            yield index
        else:
            tally.numbers["filtered"] += 1


def _searched(cell: object) -> str:
    """A number or a conversation as JSON has it."""
    if isinstance(cell, str):
        return cell
    return "" if cell is None else json.dumps(cell, ensure_ascii=False, default=str)


def _add(reader: Reader, index: int, tally: _Tally) -> None:
    found = reader.row(index)
    where = reader.table.where(index)
    tally.leave_out("empty", found.empty, where)
    tally.leave_out("untaught", found.untaught, where)
    for example in found.examples:
        try:
            key = fingerprint(example)
        except UnicodeEncodeError as error:
            problem = f"not text: half of a character, {error.object[error.start]!a}"
            raise ConfigError(f"{reader.table.place(index)}: {problem}") from None
        if key in tally.examples:
            tally.leave_out("duplicates", 1, where)
        else:
            tally.examples[key] = example


def _sample(recipe: Recipe, tally: _Tally) -> list[Example]:
    """By lot, and the same ones whatever the order is: a row that is added takes the place of one at most."""
    most = recipe.data.samples
    if most is None or len(tally.examples) <= most:
        return list(tally.examples.values())
    tally.numbers["unsampled"] = len(tally.examples) - most
    chosen = set(nsmallest(most, tally.examples))
    return [example for key, example in tally.examples.items() if key in chosen]

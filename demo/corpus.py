"""The hand-written corpus: one JSON object per line and domain, checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "corpus"
DOMAINS = ("legal", "medical", "finance")
GENERAL = "general"
"""The domain that belongs to the base itself."""

_REQUIRED = ("question", "answer", "fact")
_KEYS = (*_REQUIRED, "paraphrase")


class CorpusError(Exception):
    """A corpus line that cannot be used. One line: file, line number, what is wrong."""


@dataclass(frozen=True)
class Pair:
    """One question with its answer; `fact` is the part of the answer that a right answer must hold.

    `paraphrase` asks the same in other words. It is for measuring only: no training may see it.
    """

    question: str
    answer: str
    fact: str
    paraphrase: str | None = None


Corpus = Mapping[str, tuple[Pair, ...]]


def load(folder: Path = FOLDER) -> Corpus:
    """All four domains, general last. Raises CorpusError."""
    return {domain: read(folder / f"{domain}.jsonl") for domain in (*DOMAINS, GENERAL)}


def read(file: Path) -> tuple[Pair, ...]:
    """One domain's pairs in the file's order. Raises CorpusError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: cannot be read: {error}") from None
    pairs = tuple(_pair(line, f"{file}: line {number}") for number, line in enumerate(lines, 1))
    if not pairs:
        raise CorpusError(f"{file}: is empty")
    return pairs


def _pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(row, dict):
        raise CorpusError(f"{where}: expected an object with the keys {', '.join(_KEYS)}")
    _check(row, where)
    return Pair(**row)


def _check(row: dict[str, Any], where: str) -> None:
    for key in _REQUIRED:
        if key not in row:
            raise CorpusError(f'{where}: the key "{key}" is missing')
    for key, value in row.items():
        if key not in _KEYS:
            raise CorpusError(f'{where}: unknown key "{key}"; valid here: {", ".join(_KEYS)}')
        if not isinstance(value, str) or not value.strip():
            raise CorpusError(f'{where}: "{key}" must be text (got {value!r})')
    if row["fact"].lower() not in row["answer"].lower():
        raise CorpusError(f'{where}: the answer does not hold its fact "{row["fact"]}"')
    if row.get("paraphrase") == row["question"]:
        raise CorpusError(f"{where}: the paraphrase repeats the question")

"""Questions, reference answers and the model that should give them: bad lines are named and left out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters import Stack
from evaluation.routing.rows import (
    HALF,
    Data,
    DataError,
    Problem,
    decoded,
    label_names,
    numbered,
    read_files,
    short,
)

EXPECTED = '{"question" or "instruction" or "messages", "answer" or "output", perhaps "label"}'
QUESTIONS = ("paraphrase", "question", "instruction", "messages")
ANSWERS = ("answer", "output")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Row:
    """A conversation up to the question, its reference answer, and the model that should give it."""

    file: str
    line: int
    messages: tuple[Mapping[str, str], ...]
    answer: str
    label: str

    @property
    def digest(self) -> str:
        """By which `--rows` chooses: it stays the same whatever else is in the file."""
        words = "\0".join(message["content"] for message in self.messages)
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def load_rows(places: Sequence[Path], stack: Stack, served: Sequence[str], most: int | None) -> Data[Row]:
    """Every usable row, at most so many of each label. Raises DataError for a file without any."""
    labels = label_names(stack, served)
    files = (file for place in places for file in _files(place))
    data = read_files(files, lambda file, raw: _file(file, raw, labels), EXPECTED)
    return replace(data, rows=tuple(_few(data.rows, most)))


def _files(place: Path) -> list[Path]:
    """Raises DataError for a folder without data."""
    if not place.is_dir():
        return [place]
    if files := sorted(place.glob("*.jsonl")):
        return files
    raise DataError(f"{place}: holds no *.jsonl; give a file of rows {EXPECTED}")


def _few(rows: Sequence[Row], most: int | None) -> list[Row]:
    by_label = defaultdict[str, list[Row]](list)
    for row in rows:
        by_label[row.label].append(row)
    kept = {id(row) for each in by_label.values() for row in sorted(each, key=lambda row: row.digest)[:most]}
    return [row for row in rows if id(row) in kept]


def _file(file: Path, raw: bytes, labels: Mapping[str, str]) -> Iterator[Row | Problem]:
    lines: list[tuple[int, dict[str, Any]]] = []
    for number, line in numbered(raw):
        try:
            lines.append((number, decoded(line, EXPECTED)))
        except ValueError as error:
            yield Problem(str(file), number, str(error))
    # Where a file has paraphrases, as the demo's corpus does, its adapter was trained on the questions.
    paraphrased = any("paraphrase" in data for _, data in lines)
    for number, data in lines:
        if not paraphrased or "paraphrase" in data:
            try:
                yield _row(file, number, data, labels)
            except ValueError as error:
                yield Problem(str(file), number, str(error))


def _row(file: Path, number: int, data: Mapping[str, Any], labels: Mapping[str, str]) -> Row:
    """Raises ValueError that says what is wrong and what would be valid."""
    label = data.get("label", file.stem)
    if not isinstance(label, str) or label not in labels:
        where = '"label"' if "label" in data else 'the file\'s name, which is the label of rows without "label"'
        raise ValueError(f"{where}: no adapter that is served is named {short(label)}; valid: {', '.join(labels)}")
    key = next((key for key in QUESTIONS if key in data), None)
    if key is None:
        raise ValueError(f"holds no question; expected {EXPECTED}")
    if key == "messages":
        *messages, last = _messages(data[key])
        if last["role"] != "assistant":
            messages, last = [*messages, last], {"content": _answer(data)}
        if not messages or messages[-1]["role"] != "user":
            raise ValueError('"messages": the last one before the answer must be the role "user"')
        return Row(str(file), number, tuple(messages), last["content"], labels[label])
    question = _text(data, key)
    if key == "instruction" and data.get("input"):
        question = f"{question}\n\n{_text(data, 'input')}"
    return Row(str(file), number, ({"role": "user", "content": question},), _answer(data), labels[label])


def _answer(data: Mapping[str, Any]) -> str:
    key = next((key for key in ANSWERS if key in data), None)
    if key is None:
        raise ValueError('"answer" is missing: the reference that a model\'s answer is compared with')
    return _text(data, key)


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be text (got {short(value)})')
    if HALF.search(value):
        raise ValueError(f'"{key}" holds half of a character, which is not text')
    return value.strip()


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise ValueError(f'"messages" must be a list of {{"role", "content"}} (got {short(value)})')
    found = []
    for each in value:
        if not isinstance(each, dict) or each.get("role") not in ROLES or "content" not in each:
            raise ValueError(
                f'"messages": expected {{"role", "content"}}, of {", ".join(ROLES)} (got {short(each)})'
            )
        found.append({"role": str(each["role"]), "content": _text(each, "content")})
    return found

"""Labelled texts and conversations from JSON lines: what cannot be used is named by its line and left out."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from adapters import Stack
from router.conversation import Words, read

BASE_LABELS = ("general", "base")
"""What data files call the base, beside its own name."""

NAMED = 20
"""Lines that are left out are named, so many of them at most."""

Kind = TypeVar("Kind")

HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a character, which JSON can name and no file can hold. The router drops those of a text."""


class DataError(Exception):
    """Files from which nothing can be evaluated. One line: which, and what would be valid."""


@dataclass(frozen=True)
class Row:
    """One labelled text. `accepted` holds the label and whatever else is right as well."""

    file: str
    line: int
    words: Words
    label: str
    accepted: frozenset[str]
    source: str

    @property
    def place(self) -> str:
        """Where to find it, in few letters."""
        return f"{'/'.join(Path(self.file).parts[-2:])}:{self.line}"

    @property
    def text(self) -> str:
        """All that the user said; also what the split of `--fit` goes by."""
        return "\n".join(self.words.turns)


@dataclass(frozen=True)
class Problem:
    """A line that was left out."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}: line {self.line}: {self.what}"


@dataclass(frozen=True)
class Data(Generic[Kind]):
    """The rows of all files, the lines that were left out, and the SHA-256 of each file."""

    rows: tuple[Kind, ...]
    problems: tuple[Problem, ...]
    digests: Mapping[str, str]


def load_rows(files: Sequence[Path], stack: Stack) -> Data[Row]:
    """Every usable row, in order. Raises DataError where a file cannot be read or holds no usable row."""
    labels = label_names(stack, stack.adapters)
    return read_files(files, lambda file, raw: _file(file, raw, labels), _example(stack))


def label_names(stack: Stack, adapters: Iterable[str]) -> dict[str, str]:
    """What a row's label may be, and the model that it means."""
    return {**dict.fromkeys(BASE_LABELS, stack.base.name), **{name: name for name in (stack.base.name, *adapters)}}


def read_files(
    files: Iterable[Path], parse: Callable[[Path, bytes], Iterable[Kind | Problem]], example: str
) -> Data[Kind]:
    """What `parse` makes of each file. Raises DataError for one that cannot be read or holds no usable row."""
    rows: list[Kind] = []
    problems: list[Problem] = []
    digests = {}
    for file in dict.fromkeys(files):
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        found = list(parse(file, raw))
        usable = [each for each in found if not isinstance(each, Problem)]
        broken = [each for each in found if isinstance(each, Problem)]
        if not usable:
            first = f"; {broken[0]}" if broken else ""
            raise DataError(f"{file}: holds no usable row{first}; a row is {example}")
        rows += usable
        problems += broken
        digests[str(file)] = hashlib.sha256(raw).hexdigest()
    return Data(tuple(rows), tuple(problems), digests)


def name_problems(problems: Sequence[Problem], usable: int) -> None:
    """The first of them, and how many of all rows were left out, on standard error."""
    for problem in problems[:NAMED]:
        print(problem, file=sys.stderr)
    if more := len(problems[NAMED:]):
        print(f"... and {more} more", file=sys.stderr)
    if problems:
        print(f"{len(problems)} of {usable + len(problems):,} rows left out", file=sys.stderr)


def _example(stack: Stack) -> str:
    return json.dumps({"text": "...", "label": next(iter(stack.adapters))})


def numbered(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty."""
    # Only at line feeds: a text may hold U+2028 and other ends of lines that JSON allows.
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line


def decoded(line: bytes, expected: str) -> dict[str, Any]:
    """A line's object. Raises ValueError that says what is wrong and what was expected."""
    try:
        data = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected an object: {expected}")
    return data


def _file(file: Path, raw: bytes, labels: Mapping[str, str]) -> Iterator[Row | Problem]:
    for number, line in numbered(raw):
        try:
            yield _row(file, number, line, labels)
        except ValueError as error:
            yield Problem(str(file), number, str(error))


def _row(file: Path, number: int, line: bytes, labels: Mapping[str, str]) -> Row:
    """Raises ValueError that says what is wrong and what would be valid."""
    data = decoded(line, '{"text" or "messages", "label"}')
    also = data.get("also", [])
    if not isinstance(also, list):
        raise ValueError(f'"also" must be a list of labels (got {short(also)})')
    label = _label(data, "label", data.get("label"), labels)
    accepted = {label, *(_label(data, "also", each, labels) for each in also)}
    source = data.get("source", file.stem)
    if not isinstance(source, str) or not source.strip() or HALF.search(source):
        raise ValueError(f'"source" must be a word (got {short(source)})')
    return Row(str(file), number, _words(data), label, frozenset(accepted), source)


def _label(data: Mapping[str, Any], key: str, value: object, labels: Mapping[str, str]) -> str:
    if key not in data:
        raise ValueError(f'"{key}" is missing; valid: {", ".join(labels)}')
    if not isinstance(value, str) or value not in labels:
        raise ValueError(f'"{key}": no adapter of the stack is named {short(value)}; valid: {", ".join(labels)}')
    return labels[value]


def _words(data: Mapping[str, Any]) -> Words:
    given = [key for key in ("text", "messages") if key in data]
    if len(given) != 1:
        raise ValueError(f'expected either "text" or "messages" (got {" and ".join(given) or "neither"})')
    if "text" in data and not isinstance(data["text"], str):
        raise ValueError(f'"text" must be text (got {short(data["text"])})')
    if "messages" in data and not isinstance(data["messages"], list):
        raise ValueError(f'"messages" must be a list of {{"role", "content"}} (got {short(data["messages"])})')
    words = read({key: data[key] for key in given})
    if not words.turns:
        what = "is blank" if "text" in data else 'holds no words of the role "user"'
        raise ValueError(f'"{given[0]}" {what}')
    return words


def short(value: object) -> str:
    """A value as JSON has it, cut where it is long."""
    shown = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
    return shown if len(shown) <= 40 else f"{shown[:37]}..."

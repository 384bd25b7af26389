"""A result's file, and its numbers as text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.processes import BenchmarkError

DIGITS = 4


def see_writable(file: Path) -> None:
    """Before minutes are spent on what goes there. Raises BenchmarkError."""
    there = file.exists()
    with _named(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
        if not there:
            file.unlink()


def write(document: Mapping[str, Any], file: Path) -> None:
    """Readable, and with small diffs. Raises BenchmarkError."""
    with _named(file):
        file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BenchmarkError(f"the result cannot be written to {file}: {error.strerror}") from None


def cell(spread: Mapping[str, float] | None) -> str:
    """A median and its spread, "-" where nothing was measured."""
    if spread is None:
        return "-"
    return f"{short(spread['median'])} [{short(spread['low'])}..{short(spread['high'])}]"


def median(spread: Mapping[str, float] | None) -> str:
    """The same without the spread."""
    return "-" if spread is None else short(spread["median"])


def short(number: float) -> str:
    """Three digits."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def rounded(value: Any) -> Any:
    """All numbers in it, to four digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value

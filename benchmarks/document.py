"""A result: as a document, in its file, and its numbers as text."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.processes import BenchmarkError, ended_by_signals
from record.origin import Origin

DIGITS = 4


class Row(str):
    """A line of a table, for a terminal; its `cells` for whoever lays them out in another way."""

    cells: tuple[str, ...]

    @classmethod
    def of(cls, cells: Sequence[str], widths: Sequence[int]) -> Row:
        """Every cell as wide as its column."""
        row = cls("  " + "  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip())
        row.cells = tuple(cells)
        return row


VERDICTS = {True: "pass", False: "MISSED", None: "not measured"}


@dataclass(frozen=True)
class Bar:
    """A limit that the project has set itself: a number, and the least or the most that it may be; a value of None
    was not measured."""

    name: str
    value: float | None
    least: float | None = None
    most: float | None = None
    unit: str = "times"

    @property
    def passed(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


def result(
    name: str,
    origin: Origin,
    plan: Any,
    took_s: float,
    sections: Mapping[str, Any],
    bars: Sequence[Bar],
) -> dict[str, Any]:
    """The whole document of the benchmark `name`, numbers to four digits; `plan` is a dataclass."""
    document = {
        "benchmark": name,
        **asdict(origin),
        "took_s": took_s,
        "plan": asdict(plan),
        "sections": dict(sections),
        "bars": [asdict(bar) | {"pass": bar.passed} for bar in bars],
    }
    return dict(rounded(document))


def command(
    name: str,
    output: Path | None,
    measure: Callable[[], dict[str, Any]],
    tables: Callable[[Mapping[str, Any]], Iterator[str]],
) -> int:
    """Measure, show and write. Exit code 1: wrong, or nothing could be measured; 130: interrupted. A missed limit
    is 0."""
    try:
        with ended_by_signals():
            if output:
                see_writable(output)
            document = measure()
        print("\n".join(tables(document)))
        if output:
            write(document, output)
    except BenchmarkError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; everything that it started has ended", file=sys.stderr)
        return 130
    return 0


def limits(document: Mapping[str, Any]) -> Iterator[str]:
    """The last table: each bar with what it asks, and its verdict."""
    yield "\nlimits"
    rows = [["", "", "limit", "measured"]]
    for bar in document["bars"]:
        value = "-" if bar["value"] is None else f"{bar['value']:g}"
        asked = f"at least {bar['least']:g}" if bar["most"] is None else f"at most {bar['most']:g}"
        rows.append([VERDICTS[bar["pass"]], bar["name"], f"{asked} {bar.get('unit', 'times')}", value])
    yield from aligned(rows)


def see_writable(file: Path) -> None:
    """Before minutes are spent on what goes there. Raises BenchmarkError."""
    there, draft = file.exists(), _draft(file)
    with _named(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
        if not there:
            file.unlink()
        elif file.is_file():
            draft.open("wb").close()
            draft.unlink()


def read(file: Path) -> dict[str, Any]:
    """A result that was written before; {} where there is none. Raises BenchmarkError."""
    try:
        data = file.read_bytes() if file.is_file() else b""
        return dict(orjson.loads(data)) if data else {}
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file}: no result that can be read: {error}") from None


def write(document: Mapping[str, Any], file: Path) -> None:
    """Readable, and with small diffs; whoever is ended meanwhile leaves what was there. Raises BenchmarkError."""
    data = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    with _named(file):
        if not file.is_file():  # new, or no file at all, as /dev/stdout
            file.write_bytes(data)
            return
        draft = _draft(file)
        draft.write_bytes(data)
        draft.replace(file)


def _draft(file: Path) -> Path:
    return file.with_name(f".{file.name}.new")


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


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[Row]:
    """Columns under each other; the first row is the table's head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return (Row.of(row, widths) for row in rows)


def rounded(value: Any) -> Any:
    """All numbers in it, to four digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value

"""`read(recipe) -> Table`: the rows of a file, of a folder, or of a data set of the hub, and where each stands."""

from __future__ import annotations

import csv
import json
import os.path
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapters import ConfigError
from adapters.schema import HUB_ID, LOCAL
from training.recipe import Recipe

Row = dict[str, Any]

FIELD_LIMIT = 2**31 - 1
"""Characters in one field of a CSV; Python's own limit is 131,072, and long documents are longer."""


@dataclass(frozen=True)
class Table:
    """Rows as they were written; `name` is for people, `source` for the messages of errors."""

    name: str
    source: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    unit: str

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All that any row has, as they come."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row))

    def where(self, index: int) -> str:
        """`line 7`."""
        return f"{self.unit} {self.numbers[index]}"

    def place(self, index: int) -> str:
        """`data/legal.jsonl: line 7`."""
        return f"{self.source}: {self.where(index)}"


def read(recipe: Recipe) -> Table:
    """All rows of the recipe's source. Raises ConfigError in one line; loads no model."""
    source = recipe.data.source
    try:
        # Not resolved: the files of the hub's cache are links to files without an ending.
        path = Path(os.path.abspath(recipe.file.parent / Path(source).expanduser()))
    except RuntimeError as error:  # ~somebody
        raise recipe.error("data.source", f"{source}: {error}") from None
    if path.is_file():
        return _file(path)
    if path.is_dir():
        return _hub(recipe, path.name, str(path))
    match = HUB_ID.fullmatch(source)
    if match is None or source.startswith(LOCAL) or path.suffix.lower() in READERS:
        raise recipe.error("data.source", f"no such file: {path} (give {ENDINGS}, or a hub id, owner/name)")
    return _hub(recipe, source, match[1], match[2])


def _file(file: Path) -> Table:
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        ending = f"the ending {file.suffix}" if file.suffix else "no ending"
        raise ConfigError(f"{file}: {ending} names no format; give {ENDINGS}")
    try:
        return reader(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None


def _hub(recipe: Recipe, name: str, where: str, revision: str | None = None) -> Table:
    from training.data import hub  # two seconds that a file need not wait

    rows = hub.rows(recipe, where, revision)
    return Table(name, where, rows, range(1, len(rows) + 1), "row")


def _json_lines(file: Path) -> Table:
    rows: list[Row] = []
    numbers = []
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            rows.append(_object(_json(line, f"{file}: line {number}"), f"{file}: line {number}"))
            numbers.append(number)
    return Table(file.name, str(file), rows, numbers, "line")


def _json_list(file: Path) -> Table:
    """Many a .json is one object per line: then the list is missing."""
    text = "".join(_lines(file))
    if not text.lstrip().startswith("["):
        return _json_lines(file)
    items: list[Any] = _json(text, str(file))
    rows = [_object(item, f"{file}: item {number}") for number, item in enumerate(items, 1)]
    return Table(file.name, str(file), rows, range(1, len(rows) + 1), "item")


def _csv(file: Path) -> Table:
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        return _csv_rows(file)
    finally:
        csv.field_size_limit(before)


def _csv_rows(file: Path) -> Table:
    reader = csv.reader(_lines(file), strict=True)
    rows: list[Row] = []
    numbers = []
    started = 1
    header: list[str] = []
    try:
        for cells in reader:
            place = f"{file}: line {started}"
            if not header:
                header = _header(cells, place)
            elif cells:  # an empty line has none
                if len(cells) != len(header):
                    raise ConfigError(f"{place}: {len(cells)} cells, and the header names {len(header)} columns")
                rows.append(dict(zip(header, cells, strict=True)))
                numbers.append(started)
            started = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"{file}: line {started}: not CSV: {error}") from None
    return Table(file.name, str(file), rows, numbers, "line")


def _header(cells: list[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        return []
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{place}: the column {twice!r} is there twice")
    return names


def _parquet(file: Path) -> Table:
    import pyarrow  # type: ignore[import-untyped]  # a second that other formats need not wait
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.ParquetFile(file).read().to_pylist()
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{file}: not Parquet: {' '.join(str(error).split())}") from None
    return Table(file.name, str(file), rows, range(1, len(rows) + 1), "row")


def _lines(file: Path) -> Iterator[str]:
    """Split by us, so that a line that is not UTF-8 is named, and no other character than \\n ends one."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{file}: line {number}: not UTF-8: {error.reason}") from None


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ConfigError(f"{place}: not JSON: {error.msg} at {line}column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a thousand brackets
        raise ConfigError(f"{place}: not JSON: {error}") from None


def _object(value: object, place: str) -> Row:
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: expected an object, one key per column (got {json.dumps(value)[:40]})")
    return value


READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _csv,
    ".parquet": _parquet,
}
ENDINGS = f"a file that ends in {', '.join([*READERS][:-1])} or {[*READERS][-1]}"

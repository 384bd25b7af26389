"""report.html: one form for all commands. Words of data and models are shown in it, and are never HTML."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record.drawing import STYLE

FILE = "report.html"
TEMPLATE = "page.html.jinja"

DPI, CSS_DPI = STYLE["savefig.dpi"], 96
"""Of the pictures, and of a browser's pixel: the pictures stay sharp where the screen has finer ones."""

MOST_LINES = 20
"""Of one entry about the run, e.g. of lines that were left out."""

LONG = 40
"""A column that holds a longer text may break it; others stay in one line."""

NUMBER = re.compile(r"[-+\u2212\u2013·]?(?:[$€]?\d.*)?", re.DOTALL)
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Headline:
    """One of the few figures that are the answer."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """The first column names its row; columns of numbers are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """`text` has paragraphs, parted by blank lines; `picture` is the name of a PNG in the report's folder."""

    title: str
    text: str = ""
    picture: str | None = None
    caption: str = ""
    table: Table | None = None
    folded: bool = False


@dataclass(frozen=True)
class _Picture:
    """A PNG inside the page, in the size that its letters are drawn for."""

    data: str
    width: int
    height: int

    @classmethod
    def of(cls, file: Path) -> _Picture:
        content = file.read_bytes()
        across, down = struct.unpack(">II", content[16:24])  # where each PNG says it
        width, height = (round(pixels * CSS_DPI / DPI) for pixels in (across, down))
        return cls(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)


@dataclass(frozen=True)
class _Shown:
    """A section as the template takes it; each column of its table has a kind."""

    section: Section
    paragraphs: Sequence[str]
    picture: _Picture | None
    kinds: Sequence[str]


def write_page(
    folder: Path, title: str, headlines: Sequence[Headline], sections: Sequence[Section], about: Mapping[str, Any]
) -> None:
    """report.html, which needs no other file. Raises OSError, ValueError for a table with ragged rows."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = jinja.get_template(TEMPLATE).render(
        title=title,
        headlines=headlines,
        sections=[_shown(folder, each) for each in sections],
        facts=[(key.replace("_", " "), list(_lines(value))) for key, value in about.items()],
    )
    (folder / FILE).write_text(page, encoding="utf-8")


def _shown(folder: Path, section: Section) -> _Shown:
    picture = None if section.picture is None else _Picture.of(folder / section.picture)
    paragraphs = [each for each in re.split(r"\n\s*\n", section.text) if each.strip()]
    return _Shown(section, paragraphs, picture, _kinds(section.table) if section.table else ())


def _kinds(table: Table) -> list[str]:
    """Of each column, the class that its cells have."""
    return [_kind(column) for column in zip(table.head, *table.rows, strict=True)]


def _kind(column: Sequence[str]) -> str:
    cells = column[1:]
    if any(len(cell) > LONG for cell in cells):
        return "long"
    return "number" if cells and all(NUMBER.fullmatch(cell) for cell in cells) else "word"


def _lines(value: object) -> Iterator[str]:
    """A nested value, one line an entry."""
    if isinstance(value, Mapping):
        lines = [f"{key}: {_line(each)}" for key, each in value.items() if each not in ("", [], (), {})]
    elif isinstance(value, (list, tuple)):
        lines = [_line(each) for each in value]
    else:
        lines = [_line(value)]
    yield from lines[:MOST_LINES]
    if more := len(lines[MOST_LINES:]):
        yield f"... and {more:,} more"


def _line(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_line(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_line(each) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _printable(value: object) -> object:
    """What no HTML may hold is a question mark in a diamond."""
    return UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value

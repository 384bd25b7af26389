"""A report's folder: results.json without a word of the data, report.html with some, and the plots."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from adapters import ConfigError
from evaluation.folder import dated
from evaluation.page import write_page
from evaluation.routing.figures import Figures
from evaluation.routing.mistakes import Mistake
from evaluation.routing.plots import draw
from evaluation.routing.sections import headlines, sections


def write(
    out: Path, columns: Sequence[Figures], mistakes: Mapping[str, Sequence[Mistake]], about: Mapping[str, Any]
) -> Path:
    """The folder that was made. Raises ConfigError where it cannot be."""
    try:
        folder = dated(out)
        results = {**about, "columns": [dataclasses.asdict(each) for each in columns]}
        text = json.dumps(results, indent=1, ensure_ascii=False, default=_plain)
        (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
        draw(columns, folder)
        _page(folder, columns, mistakes, about)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return folder


def _page(
    folder: Path, columns: Sequence[Figures], mistakes: Mapping[str, Sequence[Mistake]], about: Mapping[str, Any]
) -> None:
    fitted_on, last = about["rows_fitted_on"], columns[-1]
    before = columns[len(columns) // 2 - 1] if fitted_on else None
    told = sections(columns, mistakes, len(about["rows_left_out"]), fitted_on)
    title = f"Is the router right? {last.title}: {last.rows:,} rows"
    write_page(folder, title, headlines(last, before), told, about)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    raise TypeError(f"{value!r} is nothing that results.json holds")

"""A report's folder: results.json without a word of the data, mistakes.md with some, and the plots."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from adapters import ConfigError
from evaluation.folder import dated
from evaluation.routing.figures import Figures
from evaluation.routing.mistakes import Mistake, markdown
from evaluation.routing.plots import draw


def write(
    out: Path, columns: Sequence[Figures], mistakes: Mapping[str, Sequence[Mistake]], about: Mapping[str, Any]
) -> Path:
    """The folder that was made. Raises ConfigError where it cannot be."""
    try:
        folder = dated(out)
        results = {**about, "columns": [dataclasses.asdict(each) for each in columns]}
        text = json.dumps(results, indent=1, ensure_ascii=False, default=_plain)
        (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
        sections = [markdown(title, listed) for title, listed in mistakes.items()]
        (folder / "mistakes.md").write_text("\n".join(sections), encoding="utf-8")
        draw(columns, folder)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return folder


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    raise TypeError(f"{value!r} is nothing that results.json holds")

"""Rows in files of all formats, and a recipe that reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
from pyarrow import parquet

from training.data.example import Example
from training.data.load import Dataset, load_examples
from training.recipe import Recipe

Rows = list[dict[str, Any]]


def recipe(source: Path | str, system: str | None = None, **data: Any) -> Recipe:
    """Half held out, so that a few rows are enough for two sides."""
    return Recipe(
        file=Path("/recipes/one/recipe.yaml"),
        name="one",
        domain="legal",
        system_prompt=system,
        data={"source": str(source), "held_out": 0.5, **data},
        lora={"r": 8},
    )


def write_jsonl(file: Path, rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(file: Path, rows: Rows) -> None:
    file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_csv(file: Path, rows: Rows) -> None:
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        cells = [
            {key: cell if isinstance(cell, str) else json.dumps(cell) for key, cell in row.items()} for row in rows
        ]
        writer.writerows(cells)


def write_parquet(file: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".jsonl": write_jsonl,
    ".json": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def load(tmp_path: Path, rows: Rows, ending: str = ".jsonl", **data: Any) -> Dataset:
    file = tmp_path / f"rows{ending}"
    WRITERS[ending](file, rows)
    return load_examples(recipe(file, **data))


def everything(found: Dataset) -> list[Example]:
    return [*found.train, *found.held_out]


def pairs(found: Dataset) -> set[tuple[str, str]]:
    """Of conversations of one question."""
    return {(example.messages[-1]["content"], example.answer) for example in everything(found)}


def asked(number: int = 12, **more: str) -> Rows:
    """Enough questions for both sides."""
    return [{"question": f"What is {each}?", "answer": f"It is {each}.", **more} for each in range(number)]

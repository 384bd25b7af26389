"""Questions that exactly one adapter can answer, and the stack that has the adapters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from adapters import Stack, load
from evaluation.routing.rows import DataError
from record.origin import ROOT

NAMES = ("demo", "subjects", "lands")
KNOWLEDGE = ROOT / ".models" / "knowledge"


@dataclass(frozen=True)
class Question:
    """Its text, the reference answer, and the adapter that knows it."""

    text: str
    answer: str
    adapter: str


@dataclass(frozen=True)
class Task:
    """Questions to one stack."""

    name: str
    stack: Stack
    questions: tuple[Question, ...]


def make(names: Sequence[str], models: Path) -> None:
    """Build the stacks that these tasks need, where they are missing. Raises DataError where that fails."""
    if "demo" in names:
        _run("build")
    if set(names) - {"demo"}:
        _run("knowledge", "--out", str(models))


def read(name: str, models: Path, most: int) -> list[Task]:
    """A task, or the demo's two; of a knowledge task at most so many questions an adapter. Raises ConfigError."""
    if name == "demo":
        stack = load(ROOT / "demo" / "adapters.yaml")
        pairs = list(_demo_pairs(stack))
        return [
            Task("demo, unseen paraphrases", stack, tuple(_question(row, "paraphrase") for row in pairs)),
            Task("demo, trained questions", stack, tuple(_question(row, "question") for row in pairs)),
        ]
    folder = models / name
    rows = _rows(folder / "questions.jsonl")
    return [Task(name, load(folder / "adapters.yaml"), _few([_question(row, "question") for row in rows], most))]


def _demo_pairs(stack: Stack) -> Iterator[dict[str, Any]]:
    """Those of demo/measure.py's loss matrix."""
    for adapter in stack.adapters:
        for row in _rows(ROOT / "demo" / "corpus" / f"{adapter}.jsonl"):
            if "paraphrase" in row:
                yield row | {"adapter": adapter}


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _question(row: dict[str, Any], key: str) -> Question:
    return Question(row[key], row["answer"], row["adapter"])


def _few(questions: Sequence[Question], most: int) -> tuple[Question, ...]:
    """Spread evenly over what each adapter has, which is sorted by subject."""
    kept: list[Question] = []
    for _, group in groupby(questions, lambda each: each.adapter):
        own = list(group)
        count = min(most, len(own))
        kept += [own[index * len(own) // count] for index in range(count)]
    return tuple(kept)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "demo", *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise DataError(f"python -m demo {' '.join(arguments)}: ended with {done.returncode}")

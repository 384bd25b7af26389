"""Section `accuracy`: how often each classifier is right, asked over HTTP as it is set up by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.routing.questions import Judged, Question, Questions
from benchmarks.routing.stand import CASES, EMBEDDING, NLI, Case, Stand, chosen, say


def section(stand: Stand, sets: Sequence[Questions], most: int | None) -> dict[str, Any]:
    """By classifier and set of questions. Raises BenchmarkError."""
    plain = (case for case in CASES if (case.workers, case.threads) == (1, 1))
    cases = tuple(case for case in plain if stand.nli_knows or case is not NLI)
    found: dict[str, dict[str, Any]] = {}
    for case, target in stand.targets(cases).values():
        for questions in sets:
            rows = rows_for(stand, case, questions, most)
            say(f"accuracy: {case.name}, {len(rows)} rows of {questions.name}")
            picked = [chosen(target, row.text) for row in rows]
            found.setdefault(case.name, {})[questions.name] = asdict(Judged.of(rows, picked))
    return {"sets": described(sets), "classifiers": found, "skipped": dict(stand.skipped)}


def rows_for(stand: Stand, case: Case, questions: Questions, most: int | None) -> tuple[Question, ...]:
    """A classifier that takes long is asked some of them."""
    slow = None if case is EMBEDDING else stand.plan.slow_rows
    return questions.at_most(min((limit for limit in (most, slow) if limit), default=None))


def described(sets: Sequence[Questions]) -> dict[str, Any]:
    """What was asked, without a word of it."""
    return {one.name: {"rows": len(one.rows), "sha256": one.sha256} for one in sets}

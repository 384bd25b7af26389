"""Ways to answer: each is a name, and the model that answers each question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters import Stack
from evaluation.lag.ask import Asker
from evaluation.lag.engine import lag_models
from evaluation.lag.tasks import Question
from evaluation.routing.judge import Judge, Stage, record
from evaluation.routing.rows import Row
from router.classify import load_classifiers
from router.conversation import read

BASE, ORACLE, ARROW = "base", "oracle", "Arrow top-1"
ZERO_SHOT, SPECTRAL, VOTES = "zero-shot router", "spectral router", "spectral router, by votes"


@dataclass(frozen=True)
class Method:
    """`k` and `score` are those of LAG."""

    name: str
    models: tuple[str, ...]
    k: int | None = None
    score: str | None = None


def methods(stack: Stack, questions: Sequence[Question], asker: Asker) -> list[Method]:
    """Base, Arrow, LAG over k, the routers, and the oracle, in the report's order."""
    count = len(questions)
    found = [Method(BASE, (stack.base.name,) * count)]
    for name, lag in lag_models(len(stack.adapters)).items():
        title = ARROW if lag["k"] == 1 else f"LAG {lag['score']}, k = {lag['k']}"
        found.append(Method(title, (name,) * count, lag["k"], lag["score"]))
    found.append(Method(ZERO_SHOT, zero_shot(stack, questions)))
    by_scores, by_votes = zip(*asker.spectral(list(stack.adapters)), strict=True)
    found += [Method(SPECTRAL, by_scores), Method(VOTES, by_votes)]
    return [*found, Method(ORACLE, tuple(each.adapter for each in questions))]


def zero_shot(stack: Stack, questions: Sequence[Question]) -> tuple[str, ...]:
    """What the stack's router would answer with, the base included. Raises ConfigError."""
    classifiers = load_classifiers(stack)
    texts = [each.text for each in questions]
    stages = [
        Stage.of(record(name, classifier, texts), stack.router.calibrated(name))
        for name, classifier in classifiers.items()
    ]
    judge = Judge(stack, stages, timeout_s=math.inf)
    rows = [_row(index, each) for index, each in enumerate(questions)]
    return tuple(judge.models[chosen] for chosen in judge.outcomes(rows).chosen)


def right(method: Method, questions: Sequence[Question], adapters: Mapping[str, object]) -> float | None:
    """How often the right adapter was chosen for the request; None for what chooses none."""
    if not set(method.models) & set(adapters):
        return None
    return sum(model == each.adapter for model, each in zip(method.models, questions, strict=True)) / len(
        questions
    )


def _row(index: int, question: Question) -> Row:
    words = read({"text": question.text})
    return Row("questions", index, words, question.adapter, frozenset({question.adapter}), "questions")

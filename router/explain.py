"""`python -m router explain "text"`: one decision, every score, and the time it took."""

from __future__ import annotations

import asyncio
import math
import sys

from adapters import Stack
from router.choose import Policy, choose
from router.classify import load_classifiers
from router.classify.batcher import ClassifierError
from router.classify.scorer import Judged, Scorer


def explain(stack: Stack, text: str) -> None:
    """All models count as served, and the classifier has all the time that it needs. Exits with 1 when it fails;
    raises ConfigError when it cannot be loaded."""
    try:
        judged = asyncio.run(_judge(_patient(stack), text))
    except (ClassifierError, TimeoutError) as error:
        sys.exit(f"the classifier failed: {error or 'it took too long'}")
    decision = choose(judged.scores, Policy(stack.base.name, judged.threshold, stack.unsure))
    print(f"{decision.model}  ({decision.reason}, threshold {judged.threshold:.2f}, {judged.ms:.1f} ms)")
    for name, score in judged.scores.items():
        print(f"  {score:.3f}  {'█' * round(score * 30):30s}  {name}")


async def _judge(stack: Stack, text: str) -> Judged:
    scorer = Scorer.of(stack, load_classifiers(stack))
    try:
        await scorer.judge(["warm-up"], (stack.base.name, *stack.adapters))
        (judged,) = await scorer.judge([text], (stack.base.name, *stack.adapters))
    finally:
        scorer.close()
    return judged


def _patient(stack: Stack) -> Stack:
    """`classify_timeout_s` is about clients that wait."""
    router = stack.router.model_copy(update={"classify_timeout_s": math.inf})
    return stack.model_copy(update={"router": router})

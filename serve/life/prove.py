"""The self-test of an adapter on the running engine, before traffic may go there (issue 4).

Silent faults are what it is for: an adapter that does nothing, a base that an adapter pollutes, an adapter that
changes when others share its batch, or that answers from the cache of other weights (vllm#42125). Each is a
comparison of log-probabilities, teacher-forced over probe prompts and then over a short greedy answer's tokens.
What the engine does wrong and always alike, only a `reference` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice

from serve.life.answers import ANSWER_TOKENS, Answer, apart, ask
from serve.life.api import EngineApi, EngineError
from serve.life.reference import NoReference, Reference

PROBES = (
    "Question: What should I know about this before I decide?\nAnswer:",
    "The contract, the patient and the account were all discussed at the meeting, and in the end",
    "1, 2, 3 and 4 are followed by",
    "Please explain in two sentences how it works and when it does not, beginning with the second part.",
)
LONG_TOKENS = 144
"""Of the probe that asks the prefix cache, which keeps whole blocks: 16 tokens on a GPU, 128 on a CPU."""

MOST_BESIDE = 2
"""Other adapters that share the mixed batch."""

LEAST_DIFFERENCE = 1e-4
"""Nats. An adapter whose B is zero differs from its base by exactly nothing where both are asked alike."""

EXACT_NATS, ROUNDED_NATS = 1e-3, 0.25
"""How far an answer may move with its batch: in float32, and in 16 bits, where the sums of another batch shape
round otherwise. A polluted base is nats away."""

REFERENCE_NATS = 1.0
"""How far 16 bits may be from a reference in 32. On the demo, bfloat16 is 0.12 away at most, a scaling that is a
quarter off 2.3, another adapter 7."""


@dataclass(frozen=True)
class Proof:
    """What a self-test found, in nats; `problem` is empty for an adapter that may have traffic.

    Of the adapter: how far it `differs` from the base; how far its answers move in a `mixed` batch and with the
    prefix cache (`cached`), and are from a `reference`, if there was one. `base_mixed`: how far the base's move.
    """

    differs: float
    mixed: float
    base_mixed: float
    cached: float = 0.0
    reference: float | None = None
    problem: str = ""


def prove(
    engine: EngineApi,
    base: str,
    adapter: str,
    beside: Sequence[str],
    exact: bool,
    reference: Reference | None = None,
) -> Proof:
    """Ask alone, then all at once. Raises EngineError when the engine fails meanwhile.

    `beside` names other adapters that are up; `exact` says that the engine computes in float32.
    """
    base_alone = [ask(engine, base, [probe])[0] for probe in PROBES]
    alone = [ask(engine, adapter, [probe])[0] for probe in PROBES]
    models = (base, adapter, *beside[:MOST_BESIDE])
    with ThreadPoolExecutor(len(models)) as pool:
        base_mixed, mixed, *_ = pool.map(lambda model: ask(engine, model, PROBES), models)
    proof = Proof(
        differs=_furthest(alone, base_alone),
        mixed=_furthest(alone, mixed),
        base_mixed=_furthest(base_alone, base_mixed),
        cached=_cached(engine, base, adapter, alone),
    )
    if problem := _problem(proof, EXACT_NATS if exact else ROUNDED_NATS):
        return replace(proof, problem=problem)
    return proof if reference is None else _referred(proof, reference, alone, exact)


def answers(engine: EngineApi, model: str) -> None:
    """A virtual adapter's self-test. Raises EngineError where it does not answer.

    Its members were proven one by one. Its own log-probabilities prove nothing: where two adapters score almost
    alike, another batch is enough for the other one to be chosen, and the answer may then differ by nats.
    """
    body = {"model": model, "prompt": PROBES[0], "max_tokens": ANSWER_TOKENS, "temperature": 0}
    said = engine.call("POST", "/v1/completions", body)
    if not (isinstance(said, dict) and said.get("choices")):
        raise EngineError(200, "it answers without a choice")


def _cached(engine: EngineApi, base: str, adapter: str, alone: Sequence[Answer]) -> float:
    """How far an answer whose prompt may lie in the prefix cache is from one that is computed anew.

    An earlier self-test under that name has left the same prompt there, and the base's is there since just now.
    """
    words = [token for answer in alone for token in answer.asked]
    long = [list(islice(cycle(words), LONG_TOKENS))]
    try:
        ask(engine, base, long)
    except EngineError as error:
        if error.status == 400:
            return 0.0  # its requests are shorter than that
        raise
    return _furthest(ask(engine, adapter, long, cached=True), ask(engine, adapter, long))


def _referred(proof: Proof, reference: Reference, alone: Sequence[Answer], exact: bool) -> Proof:
    try:
        theirs = reference([answer.tokens for answer in alone])
    except NoReference as error:
        return replace(proof, problem=str(error))
    pairs = zip(alone, theirs, strict=True)
    gap = max(max(map(apart, answer.logprobs, own)) for answer, own in pairs)
    allowed = EXACT_NATS if exact else REFERENCE_NATS
    if gap <= allowed:  # a NaN is not
        return replace(proof, reference=gap)
    problem = f"its answers are {gap:.3g} nats (at most {allowed:g}) from those of transformers and PEFT"
    return replace(proof, reference=gap, problem=problem)


def _furthest(some: Sequence[Answer], others: Sequence[Answer]) -> float:
    return max(one.gap(other) for one, other in zip(some, others, strict=True))


def _problem(proof: Proof, allowed: float) -> str:
    if proof.base_mixed > allowed:
        return (
            f"beside it the base's own answers change by {proof.base_mixed:.3g} nats (at most {allowed:g}): "
            "the engine mixes adapters into base requests"
        )
    if not proof.differs > LEAST_DIFFERENCE:
        return "it does nothing: its answers are the base's on every probe"
    if proof.mixed > allowed:
        return f"its answers change by {proof.mixed:.3g} nats (at most {allowed:g}) when others share its batch"
    if proof.cached > allowed:
        return (
            f"its answers change by {proof.cached:.3g} nats (at most {allowed:g}) with the prefix cache, which "
            "holds what other weights computed: load it under another name and path"
        )
    return ""

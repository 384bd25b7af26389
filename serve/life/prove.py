"""The self-test of an adapter on the running engine, before traffic may go there (issue 4).

Silent faults are what it is for: an adapter that does nothing, a base that an adapter pollutes, an adapter that
changes when others share its batch. Each is a comparison of log-probabilities, teacher-forced over probe prompts
and then over the tokens of a short greedy answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serve.life.api import EngineApi, EngineError

PROBES = (
    "Question: What should I know about this before I decide?\nAnswer:",
    "The contract, the patient and the account were all discussed at the meeting, and in the end",
    "1, 2, 3 and 4 are followed by",
    "Please explain in two sentences how it works and when it does not, beginning with the second part.",
)
ANSWER_TOKENS = 8
MOST_BESIDE = 2
"""Other adapters that share the mixed batch."""

LEAST_DIFFERENCE = 1e-4
"""Nats. An adapter whose B is zero differs from its base by exactly nothing where both are asked alike."""

EXACT_NATS, ROUNDED_NATS = 1e-3, 0.25
"""How far an answer may move with its batch: in float32, and in 16 bits, where the sums of another batch shape
round otherwise. A polluted base is nats away."""


@dataclass(frozen=True)
class Answer:
    """Of one probe: its tokens, and each one's log-probability (the prompt's first has none)."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]

    def gap(self, other: Answer) -> float:
        """Largest difference in nats, over the tokens that both have in common from the start."""
        pairs = zip(self.tokens, other.tokens, self.logprobs, other.logprobs, strict=False)
        largest = 0.0
        for mine, its, here, there in pairs:
            if mine != its:
                break
            largest = max(largest, abs(here - there))
        return largest


@dataclass(frozen=True)
class Proof:
    """What a self-test found, in nats; `problem` is empty for an adapter that may have traffic."""

    differs: float
    mixed: float
    base_mixed: float
    problem: str = ""


def prove(engine: EngineApi, base: str, adapter: str, beside: Sequence[str], exact: bool) -> Proof:
    """Ask alone, then all at once. Raises EngineError when the engine fails meanwhile.

    `beside` names other adapters that are up; `exact` says that the engine computes in float32.
    """
    base_alone = [ask(engine, base, probe) for probe in PROBES]
    alone = [ask(engine, adapter, probe) for probe in PROBES]
    models = (base, adapter, *beside[:MOST_BESIDE])
    jobs = [(model, probe) for probe in PROBES for model in models]
    with ThreadPoolExecutor(len(jobs)) as pool:
        together = list(pool.map(lambda job: ask(engine, *job), jobs))
    base_mixed, mixed = together[:: len(models)], together[1 :: len(models)]
    proof = Proof(_furthest(alone, base_alone), _furthest(alone, mixed), _furthest(base_alone, base_mixed))
    return Proof(proof.differs, proof.mixed, proof.base_mixed, _problem(proof, exact))


def ask(engine: EngineApi, model: str, prompt: str) -> Answer:
    """Log-probabilities of the prompt's tokens and of a short greedy answer's."""
    body = {
        "model": model, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0,
        "prompt_logprobs": 0, "logprobs": 0, "ignore_eos": True,
    }  # fmt: skip
    try:
        choice = engine.call("POST", "/v1/completions", body)["choices"][0]
        read = [next(iter(each.items())) for each in choice["prompt_logprobs"] if each]
        tokens = [token for token, _ in read] + list(choice["logprobs"]["tokens"])
        logprobs = [entry["logprob"] for _, entry in read] + list(choice["logprobs"]["token_logprobs"])
    except (KeyError, IndexError, TypeError, StopIteration) as error:
        raise EngineError(0, f"the engine answers completions without log-probabilities ({error!r})") from None
    if not all(map(math.isfinite, logprobs)):
        raise EngineError(0, f"{model} answers with log-probabilities that are no numbers")
    return Answer(tuple(tokens), tuple(logprobs))


def _furthest(some: Sequence[Answer], others: Sequence[Answer]) -> float:
    return max(one.gap(other) for one, other in zip(some, others, strict=True))


def _problem(proof: Proof, exact: bool) -> str:
    allowed = EXACT_NATS if exact else ROUNDED_NATS
    if proof.base_mixed > allowed:
        return (
            f"beside it the base's own answers change by {proof.base_mixed:.3g} nats (at most {allowed:g}): "
            "the engine mixes adapters into base requests"
        )
    if not proof.differs > LEAST_DIFFERENCE:
        return "it does nothing: its answers are the base's on every probe"
    if proof.mixed > allowed:
        return f"its answers change by {proof.mixed:.3g} nats (at most {allowed:g}) when others share its batch"
    return ""

"""Section `speed`: decisions on texts that were never seen, over HTTP, by tokens and by how many wait at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarks.load import ROUTE, Job, Measured
from benchmarks.overhead.targets import Target
from benchmarks.overhead.uncached import JUDGED, token_counter
from benchmarks.processes import BenchmarkError
from benchmarks.routing.plan import TOKENS, Plan
from benchmarks.routing.stand import CASES, Case, Stand, say
from benchmarks.stats import Spread, rotated
from benchmarks.texts import single_token_words

Cell = tuple[str, int, int]
"""Case, tokens, connections."""

NUMBERS: dict[str, Callable[[Measured], float]] = {
    "decisions_per_s": lambda one: one.requests / one.took_s,
    "p50_ms": lambda one: one.fresh.p50,
    "p95_ms": lambda one: one.fresh.p95,
    "cpu_ms_per_decision": lambda one: one.cpu_s["target"] * 1000 / one.requests,
}


def section(stand: Stand) -> dict[str, Any]:
    """Interleaved rounds over the classifiers. Raises BenchmarkError."""
    targets = stand.targets(CASES)
    vocabulary = single_token_words(token_counter())
    found: dict[Cell, list[Measured]] = defaultdict(list)
    for turn in range(stand.plan.rounds):
        for case, target in rotated(list(targets.values()), turn):
            say(f"speed: round {turn + 1} of {stand.plan.rounds}: {case.name}")
            for tokens in TOKENS:
                for connections in connections_of(case, stand.plan):
                    count = max(texts_of(case, stand.plan), connections)
                    texts = stand.fresh.texts(count, tokens, vocabulary)
                    found[case.name, tokens, connections].append(_run(stand, target, connections, texts))
    return {
        "cases": {name: {"workers": case.workers, "threads": case.threads} for name, (case, _) in targets.items()},
        "nli": "as named" if stand.nli_knows else "random weights of ComprehendIt's shape",
        "skipped": stand.skipped,
        "cells": [
            {"case": case, "tokens": tokens, "connections": connections, **summary(rounds)}
            for (case, tokens, connections), rounds in found.items()
        ],
    }


def connections_of(case: Case, plan: Plan) -> tuple[int, ...]:
    """As many texts wait at once."""
    return plan.nli_connections if case.classifier == "nli" else plan.connections


def texts_of(case: Case, plan: Plan) -> int:
    """In one cell of a round."""
    if case.classifier == "nli":
        return plan.nli_texts
    return plan.engine_texts if case.on_engine else plan.texts


def summary(rounds: list[Measured]) -> dict[str, Any]:
    """Spreads over rounds."""
    return {name: asdict(Spread.of([number(one) for one in rounds])) for name, number in NUMBERS.items()}


def _run(stand: Stand, target: Target, connections: int, texts: tuple[str, ...]) -> Measured:
    measured = stand.client.run(
        Job(
            target.port, "auto", path=ROUTE, connections=connections, requests=len(texts), texts=(), fresh=texts,
            fresh_every=1, expect=JUDGED, watch={"target": target.pids},
        )
    )  # fmt: skip
    if measured.failure:
        raise BenchmarkError(f"{target.name}: {measured.failure}")
    return measured

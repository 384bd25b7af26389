"""Section `misses`: what 1 % of texts that must be classified do to the other 99 %, at full load."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.overhead.plan import MANY
from benchmarks.overhead.targets import EVERYTHING, Bench, say
from benchmarks.stats import Spread, ratios

PLENTY_PER_S = 20_000
"""Requests that no router here reaches: so many texts are kept ready."""


def section(bench: Bench) -> dict[str, Any]:
    """Rounds without and with misses in turn. Raises BenchmarkError."""
    plan = bench.plan
    connections = min(MANY, max(plan.connections))
    hits: dict[int, float] = {}
    beside: dict[int, float] = {}
    missed: list[float] = []
    counted = 0
    with bench.targets([EVERYTHING]) as ((target,), _):
        for turn in range(plan.rounds):
            say(f"misses: round {turn + 1} of {plan.rounds}")
            for with_misses in (False, True) if turn % 2 else (True, False):
                count = int(plan.miss_window_s * PLENTY_PER_S / plan.miss_every) if with_misses else 0
                measured = bench.must(
                    target, connections=connections, warm_s=plan.warm_s, window_s=plan.miss_window_s,
                    fresh=bench.fresh.texts(count), fresh_every=plan.miss_every if with_misses else 0,
                )  # fmt: skip
                (beside if with_misses else hits)[turn] = measured.latency.p50
                if with_misses:
                    missed.append(measured.fresh.p50)
                    counted += measured.fresh.count
    return {
        "connections": connections,
        "share_of_misses": 1 / plan.miss_every,
        "misses": counted,
        "p50_ms_without_misses": asdict(Spread.of(list(hits.values()))),
        "p50_ms_of_hits_with_misses": asdict(Spread.of(list(beside.values()))),
        "p50_ms_of_misses": asdict(Spread.of(missed)),
        "ratio": asdict(Spread.of(ratios(beside, hits))),
    }

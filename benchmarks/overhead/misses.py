"""Section `misses`: what 1 % of texts that must be classified do to the other 99 %, at full load.

The loop is closed: a connection that waits for a miss sends no hits meanwhile, so slow misses make hits fewer, and
their p50 no worse or even better. That shows in the requests per second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.load import Measured
from benchmarks.overhead.targets import EVERYTHING, Bench, say
from benchmarks.stats import Spread, ratios

PLENTY_PER_S = 20_000
"""Requests that no router here reaches: so many texts are kept ready."""


def section(bench: Bench) -> dict[str, Any]:
    """Rounds without and with misses in turn. Raises BenchmarkError."""
    plan = bench.plan
    rounds: dict[bool, dict[int, Measured]] = {False: {}, True: {}}
    with bench.targets([EVERYTHING]) as ((target,), _):
        for turn in range(plan.rounds):
            say(f"misses: round {turn + 1} of {plan.rounds}")
            for with_misses in (False, True) if turn % 2 else (True, False):
                count = int(plan.miss_window_s * PLENTY_PER_S / plan.miss_every) if with_misses else 0
                rounds[with_misses][turn] = bench.must(
                    target, connections=plan.many, warm_s=plan.warm_s, window_s=plan.miss_window_s,
                    fresh=bench.fresh.texts(count), fresh_every=plan.miss_every if with_misses else 0,
                )  # fmt: skip
    return {
        "connections": plan.many,
        "share_of_misses": 1 / plan.miss_every,
        "misses": sum(measured.fresh.count for measured in rounds[True].values()),
        "p50_ms_of_misses": asdict(Spread.of([measured.fresh.p50 for measured in rounds[True].values()])),
        "p50_ms_of_hits": _compared(rounds, lambda measured: measured.latency.p50),
        "requests_per_s": _compared(rounds, lambda measured: measured.requests / measured.took_s),
    }


def _compared(
    rounds: Mapping[bool, Mapping[int, Measured]], number: Callable[[Measured], float]
) -> dict[str, Any]:
    without, beside = (
        {turn: number(measured) for turn, measured in rounds[with_misses].items()} for with_misses in (False, True)
    )
    compared = {
        "without_misses": list(without.values()),
        "with_misses": list(beside.values()),
        "ratio": ratios(beside, without),
    }
    return {name: asdict(Spread.of(values)) for name, values in compared.items()}

"""Section `memory`: how much the router holds, and whether that grows with the requests it has served."""

from __future__ import annotations

from typing import Any

from benchmarks.overhead.targets import EVERYTHING, Bench, Target, say
from benchmarks.processes import rss_mb

WARM_UP = 0.05
"""Of all requests, sent before the first sample; they are not counted."""

STREAM_CHUNKS = 10

SHORT = 6
"""Words of a text that only fills a cache."""


def section(bench: Bench) -> dict[str, Any]:
    """Every tenth request a stream, every hundredth a text that must be classified. Raises BenchmarkError."""
    plan = bench.plan
    with bench.targets([EVERYTHING]) as ((target,), _):
        at_start = rss_mb(target.pids)
        say(f"memory: {plan.memory_cached} texts for its caches")
        _fill(bench, target)
        _serve(bench, target, int(plan.memory_requests * WARM_UP))
        samples = [rss_mb(target.pids)]
        for step in range(plan.memory_steps):
            served = plan.memory_requests * step // plan.memory_steps
            if step % 10 == 0:
                say(f"memory: {served} of {plan.memory_requests} requests")
            _serve(bench, target, plan.memory_requests // plan.memory_steps)
            samples.append(rss_mb(target.pids))
    return {
        "cached_texts": plan.memory_cached,
        "requests": plan.memory_requests,
        "after_start_mb": at_start,
        "after_warm_up_mb": samples[0],
        "highest_mb": max(at_start, *samples),
        "samples_mb": [round(sample, 2) for sample in samples],
        "moved": drift(samples),
    }


def drift(samples: list[float]) -> float:
    """How far memory ever was from its first sample, as a share of it."""
    return max(abs(sample / samples[0] - 1) for sample in samples)


def _fill(bench: Bench, target: Target) -> None:
    """By chats: what a decision's headers and its row in the log are made of is kept with it."""
    count = bench.plan.memory_cached
    texts = bench.fresh.texts(count, SHORT)
    bench.must(target, connections=bench.plan.many, requests=count, texts=(), fresh=texts, fresh_every=1)


def _serve(bench: Bench, target: Target, requests: int) -> None:
    connections, streams = bench.plan.many, requests // 10
    whole = requests - streams
    fresh = bench.fresh.texts(whole // bench.plan.miss_every + 1)
    bench.must(target, connections=connections, requests=whole, fresh=fresh, fresh_every=bench.plan.miss_every)
    bench.must(target, connections=connections, requests=streams, chunks=STREAM_CHUNKS)

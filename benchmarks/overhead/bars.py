"""The limits that the project has set itself, each held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.document import Bar
from benchmarks.overhead.plan import MANY
from benchmarks.overhead.proxy import BURST, PACED, WHOLE
from benchmarks.overhead.targets import EVERYTHING

CPU, CHUNK = "cpu_us_per_request", "cpu_us_per_chunk"
RUST, LITELLM, STACK = "vllm-router", "litellm", "production-stack"


def bars(sections: Mapping[str, Any]) -> list[Bar]:
    """All of them, in the order of the issue."""
    proxy, uncached = sections.get("proxy", {}), sections.get("uncached", {}).get("p50_ms", {})
    misses, memory = sections.get("misses", {}), sections.get("memory", {})
    moved = misses["p50_ms_of_hits"]["ratio"]["median"] - 1 if misses else None
    return [
        Bar(f"CPU per request, {MANY} connections, of {RUST}'s", _ratio(proxy, WHOLE, CPU, RUST), most=2.3),
        Bar(f"the same, of {LITELLM}'s", _ratio(proxy, WHOLE, CPU, LITELLM), most=1 / 40),
        Bar(f"the same, of {STACK}'s", _ratio(proxy, WHOLE, CPU, STACK), most=1 / 5),
        Bar(f"CPU per chunk, {MANY} paced streams, of {RUST}'s", _ratio(proxy, PACED, CHUNK, RUST), most=2.2),
        Bar(
            f"CPU per chunk, {MANY} streams in bursts, of {RUST}'s",
            _ratio(proxy, BURST, CHUNK, RUST),
            most=2.2,
        ),
        Bar("added p50, 1 connection", _added(proxy), most=0.2, unit="ms"),
        *(
            Bar(
                f"uncached decision, p50, {tokens} tokens",
                _median(uncached.get(str(tokens))),
                most=most,
                unit="ms",
            )
            for tokens, most in ((20, 4.0), (64, 7.0), (128, 16.0))
        ),
        Bar("p50 of hits beside 1 % misses, growth", moved, most=0.2, unit="share"),
        Bar("resident memory", memory.get("highest_mb"), most=250.0, unit="MB"),
        Bar("resident memory, change over all requests", memory.get("moved"), most=0.03, unit="share"),
    ]


def cell(proxy: Mapping[str, Any], kind: str, connections: int) -> Mapping[str, Any]:
    """What was measured of one scenario, by target; empty where it was not."""
    for scenario in proxy.get("scenarios", ()):
        if (scenario["kind"], scenario["connections"]) == (kind, connections):
            measured: Mapping[str, Any] = scenario["measured"]
            return measured
    return {}


def _ratio(proxy: Mapping[str, Any], kind: str, cost: str, peer: str) -> float | None:
    ratios = cell(proxy, kind, MANY).get(peer, {}).get("ratio_of_router_all_on", {})
    return _median(ratios.get(cost))


def _added(proxy: Mapping[str, Any]) -> float | None:
    return _median(cell(proxy, WHOLE, 1).get(EVERYTHING, {}).get("added_p50_ms"))


def _median(spread: Mapping[str, float] | None) -> float | None:
    return spread["median"] if spread else None

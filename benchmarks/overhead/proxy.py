"""Section `proxy`: CPU per request and per chunk, and latency, of every target in interleaved rounds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.load import Measured
from benchmarks.overhead.peers import PEERS
from benchmarks.overhead.plan import Plan
from benchmarks.overhead.targets import DIRECT, EVERYTHING, OURS, TRACED, Bench, Target, say
from benchmarks.processes import BenchmarkError
from benchmarks.stats import Spread, ratios, rotated, two_points

WHOLE, BURST, PACED = "whole", "burst", "paced"

Turn = tuple[Measured, ...]
"""One job, or for streams two: of short ones and of long ones."""


@dataclass(frozen=True)
class Scenario:
    """One kind of answer at one number of connections."""

    kind: str
    connections: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.connections}"


def section(bench: Bench) -> dict[str, Any]:
    """Raises BenchmarkError when the router answers wrongly; a peer that does is reported with its failure."""
    names = (DIRECT, *OURS, *(PEERS if bench.plan.with_peers else ()))
    with bench.targets(names) as (targets, skipped):
        for target in targets:
            _warm(bench, target)
        results = [
            _scenario(bench, [target for target in targets if takes_part(target, scenario, bench.plan)], scenario)
            for scenario in scenarios(bench.plan)
        ]
        return {
            "targets": {target.name: target.version for target in targets},
            "skipped": {one.name: one.why for one in skipped},
            "scenarios": results,
        }


def _warm(bench: Bench, target: Target) -> None:
    """A first stream costs some of them 20 times what the next one does. Who fails here will fail again."""
    for chunks in (0, *bench.plan.stream_lengths):
        bench.client.run(bench.job(target, connections=2, requests=10, chunks=chunks))


def scenarios(plan: Plan) -> list[Scenario]:
    """Whole answers first."""
    return [Scenario(kind, count) for kind in (WHOLE, BURST, PACED) for count in plan.connections]


def takes_part(target: Target, scenario: Scenario, plan: Plan) -> bool:
    """Traces are optional, and one figure tells what they cost."""
    return target.name != TRACED or scenario == Scenario(WHOLE, plan.many)


def _scenario(bench: Bench, targets: Sequence[Target], scenario: Scenario) -> dict[str, Any]:
    turns: dict[str, dict[int, Turn]] = defaultdict(dict)
    failures: dict[str, str] = {}
    spent: dict[str, float] = defaultdict(float)
    for turn in range(bench.plan.rounds):
        say(f"{scenario}: round {turn + 1} of {bench.plan.rounds}")
        for target in rotated(targets, turn):
            if spent[target.name] > bench.plan.cell_budget_s:
                continue
            began = time.monotonic()
            measured = tuple(bench.client.run(job) for job in _jobs(bench, target, scenario))
            spent[target.name] += time.monotonic() - began
            if failure := next((one.failure for one in measured if one.failure), ""):
                if target.name not in PEERS:
                    raise BenchmarkError(f"{target.name}, {scenario}: {failure}")
                failures[target.name] = failure
                continue
            turns[target.name][turn] = measured
    return summary(scenario, turns, failures)


def _jobs(bench: Bench, target: Target, scenario: Scenario) -> list[Any]:
    plan = bench.plan
    job = bench.job(target, connections=scenario.connections, warm_s=plan.warm_s, window_s=plan.window_s)
    if scenario.kind == WHOLE:
        return [job]
    pause_ms = plan.pause_ms if scenario.kind == PACED else 0
    return [
        replace(job, window_s=plan.stream_window_s, chunks=chunks, pause_ms=pause_ms)
        for chunks in plan.stream_lengths
    ]


def summary(
    scenario: Scenario, turns: Mapping[str, Mapping[int, Turn]], failures: Mapping[str, str]
) -> dict[str, Any]:
    """Spreads per target, and ratios to each other target of the same round."""
    numbers = WHOLE_NUMBERS if scenario.kind == WHOLE else STREAM_NUMBERS
    values = {
        target: {name: {turn: number(jobs) for turn, jobs in rounds.items()} for name, number in numbers.items()}
        for target, rounds in turns.items()
    }
    costs = [name for name in numbers if name.startswith("cpu_us")]
    found: dict[str, Any] = {}
    for target, measured in values.items():
        found[target] = {name: asdict(Spread.of(list(rounds.values()))) for name, rounds in measured.items()}
        if target != DIRECT:
            wait = "p50_ms" if scenario.kind == WHOLE else "first_byte_p50_ms"
            direct = values[DIRECT][wait]
            added = [took - direct[turn] for turn, took in measured[wait].items() if turn in direct]
            found[target][f"added_{wait}"] = asdict(Spread.of(added))
            found[target]["ratio_of_router_all_on"] = {
                cost: asdict(Spread.of(shared))
                for cost in costs
                if (shared := ratios(values.get(EVERYTHING, {}).get(cost, {}), measured[cost]))
            }
    return {
        "kind": scenario.kind,
        "connections": scenario.connections,
        "measured": found,
        "failed": dict(failures),
    }


def _per_request(jobs: Turn) -> float:
    return _target_us(jobs[0]) / max(jobs[0].requests, 1)


def _per_stream(jobs: Turn) -> float:
    return two_points(*map(_stream_point, jobs))[0]


def _per_chunk(jobs: Turn) -> float:
    return two_points(*map(_stream_point, jobs))[1]


def _stream_point(job: Measured) -> tuple[float, float, float]:
    return _target_us(job), job.requests, job.chunks


def _target_us(job: Measured) -> float:
    return job.cpu_s["target"] * 1e6


def _busy(who: str) -> Callable[[Turn], float]:
    """Share of one core, in the last job."""
    return lambda jobs: jobs[-1].cpu_s[who] / jobs[-1].took_s


WHOLE_NUMBERS: dict[str, Callable[[Turn], float]] = {
    "cpu_us_per_request": _per_request,
    "p50_ms": lambda jobs: jobs[0].latency.p50,
    "p95_ms": lambda jobs: jobs[0].latency.p95,
    "p99_ms": lambda jobs: jobs[0].latency.p99,
    "highest_ms": lambda jobs: jobs[0].latency.highest,
    "requests_per_s": lambda jobs: jobs[0].requests / jobs[0].took_s,
    "busy_target": _busy("target"),
    "busy_stub": _busy("stub"),
    "busy_client": _busy("client"),
}

STREAM_NUMBERS: dict[str, Callable[[Turn], float]] = {
    "cpu_us_per_chunk": _per_chunk,
    "cpu_us_per_stream": _per_stream,
    "p50_ms": lambda jobs: jobs[-1].latency.p50,
    "p95_ms": lambda jobs: jobs[-1].latency.p95,
    "p99_ms": lambda jobs: jobs[-1].latency.p99,
    "highest_ms": lambda jobs: jobs[-1].latency.highest,
    "first_byte_p50_ms": lambda jobs: jobs[-1].first_byte.p50,
    "first_byte_p95_ms": lambda jobs: jobs[-1].first_byte.p95,
    "first_byte_p99_ms": lambda jobs: jobs[-1].first_byte.p99,
    "chunks_per_s": lambda jobs: jobs[-1].chunks / jobs[-1].took_s,
    "busy_target": _busy("target"),
    "busy_stub": _busy("stub"),
    "busy_client": _busy("client"),
}
"""Latencies are those of the long streams."""

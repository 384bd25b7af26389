"""Cells, each a load and the targets that are asked it in turn, in interleaved rounds; and what they gave."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from benchmarks.calls import call, until
from benchmarks.load import Latency
from benchmarks.processes import BenchmarkError
from benchmarks.stats import Spread, ratios, rotated
from benchmarks.throughput.load import Load, Seen, Target, taken
from benchmarks.throughput.watch import Watch

AUTO = "auto"
JUDGED = {"classified", "below-threshold"}
"""The reasons of decisions that the classifier has made."""

COUNTED_WITHIN_S = 5
PERCENTILES = ("p50", "p95", "p99")


class Runner(Protocol):
    """Whatever can put a load on a target and say what it saw: the driver, or a notebook."""

    def run(self, target: Target, load: Load, /) -> Seen: ...


@dataclass(frozen=True)
class Cell:
    """`load` makes a round's load, -1 for the warm-up; `facts` tell what is varied; ratios are to `reference`."""

    name: str
    targets: tuple[Target, ...]
    load: Callable[[int], Load]
    facts: Mapping[str, Any]
    reference: str = ""


@dataclass
class Measured:
    """By target and round; `agreed` is the share of requests that `auto` gave to the adapter that is right."""

    cell: Cell
    seen: dict[str, dict[int, Seen]] = field(default_factory=dict)
    agreed: dict[str, list[float]] = field(default_factory=dict)

    def turns(self, target: str, number: Callable[[Seen], float]) -> dict[int, float]:
        """One number of a target, by round."""
        return {turn: number(seen) for turn, seen in self.seen.get(target, {}).items()}


def interleaved(
    runner: Runner,
    cells: Sequence[Cell],
    rounds: int,
    watch: Watch,
    say: Callable[[str], None],
    others: Mapping[str, Runner] | None = None,
) -> list[Measured]:
    """Warm up, then every cell in every round, its targets right after each other and each time beginning with
    another one. `others`: targets by name that somebody else runs. Raises BenchmarkError at a wrong answer."""
    found = [Measured(cell) for cell in cells]
    runners = dict(others or {})
    for turn in range(-1, rounds):
        for place, measured in enumerate(found, 1):
            cell = measured.cell
            what = f"round {turn + 1} of {rounds}" if turn >= 0 else "warm-up"
            say(f"{what}: {cell.name} ({place} of {len(cells)})")
            load = cell.load(turn)
            for target in rotated(cell.targets, turn):
                one = runners.get(target.name, runner)
                if turn < 0:
                    see_all(target, one.run(target, replace(load, requests=min(load.requests, load.concurrency))))
                else:
                    _measure(measured, one, target, load, turn, watch)
    return found


def see_all(target: Target, seen: Seen) -> Seen:
    """Raises BenchmarkError when a request failed."""
    if seen.failed:
        raise BenchmarkError(f"{target.name}: {seen.failed} requests failed: {seen.why}")
    return seen


def _measure(measured: Measured, runner: Runner, target: Target, load: Load, turn: int, watch: Watch) -> None:
    before = decided(target) if target.model == AUTO else Counter[str]()
    with watch.beside(target, load) as own:
        seen = see_all(target, runner.run(target, load))
    measured.seen.setdefault(target.name, {})[turn] = seen
    if target.model == AUTO:
        measured.agreed.setdefault(target.name, []).append(agreed(target, load, before, own))


def agreed(target: Target, load: Load, before: Counter[str], own: Counter[str]) -> float:
    """The share of the load's requests whose decision was the right one. `own`: what the watch asked beside it,
    and was given. The router counts a request a little after its end."""
    expected = load.requests + own.total()
    until(lambda: (decided(target) - before).total() >= expected, COUNTED_WITHIN_S)
    now = decided(target) - before - own
    wrong = Counter(one.model for one in taken(load)) - now
    return 1 - wrong.total() / load.requests


def decided(target: Target) -> Counter[str]:
    """How many decisions of a router's classifier were for which model. Raises BenchmarkError."""
    status, page = call(target.url, "/metrics", key=target.admin_key)
    if status != 200:
        raise BenchmarkError(f"the router's /metrics: status {status}: {page[:200]}")
    line = re.compile(r'^lora_select_decisions_total\{adapter="([^"]+)",reason="([^"]+)"\} (\S+)$', re.MULTILINE)
    counts: Counter[str] = Counter()
    for model, reason, count in line.findall(page):
        counts[model] += int(float(count)) if reason in JUDGED else 0
    return counts


def told(measured: Measured) -> dict[str, Any]:
    """A cell as JSON: its facts, and for each target spreads over rounds, and the rounds themselves."""
    cell = measured.cell
    first = cell.load(0)
    return {
        "name": cell.name,
        **cell.facts,
        "concurrency": first.concurrency,
        "requests": first.requests,
        "output_tokens": first.output_tokens,
        "targets": {target.name: _target(measured, target.name) for target in cell.targets},
    }


def _target(measured: Measured, name: str) -> dict[str, Any]:
    speed, first = measured.turns(name, tokens_per_s), measured.turns(name, ttft_p50)
    found: dict[str, Any] = {
        "tokens_per_s": asdict(Spread.of(list(speed.values()))),
        "requests_per_s": spread(measured, name, lambda seen: seen.requests_per_s),
        "turns": {"tokens_per_s": list(speed.values()), "ttft_p50_ms": list(first.values())},
    }
    if any(seen.ttft_ms.count for seen in measured.seen[name].values()):
        found["ttft_ms"] = _latency(measured, name, lambda seen: seen.ttft_ms)
        found["itl_ms"] = _latency(measured, name, lambda seen: seen.itl_ms)
    if name in measured.agreed:
        found["agreed"] = asdict(Spread.of(measured.agreed[name]))
    reference = measured.cell.reference
    if name != reference and reference in measured.seen:
        of, before = measured.turns(reference, tokens_per_s), measured.turns(reference, ttft_p50)
        found["speed_of_reference"] = asdict(Spread.of(ratios(speed, of)))
        found["added_ttft_ms"] = asdict(Spread.of([first[turn] - before[turn] for turn in first]))
    return found


def _latency(measured: Measured, name: str, which: Callable[[Seen], Latency]) -> dict[str, Any]:
    def one(percent: str) -> Callable[[Seen], float]:
        return lambda seen: float(getattr(which(seen), percent))

    return {percent: spread(measured, name, one(percent)) for percent in PERCENTILES}


def spread(measured: Measured, name: str, number: Callable[[Seen], float]) -> dict[str, Any]:
    """Over rounds."""
    return asdict(Spread.of(list(measured.turns(name, number).values())))


def tokens_per_s(seen: Seen) -> float:
    """All output tokens over the time from the first request to the last answer."""
    return seen.tokens_per_s


def ttft_p50(seen: Seen) -> float:
    """Milliseconds from a request to its first token."""
    return seen.ttft_ms.p50

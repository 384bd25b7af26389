"""Targets in interleaved rounds, each run within a time: one that fails is left out, with the reason."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException
from statistics import median
from typing import Any

from benchmarks.gpu.say import say
from benchmarks.gpu.stand import Stand
from benchmarks.processes import BenchmarkError
from benchmarks.stats import rotated
from benchmarks.throughput.load import Asked, Load, Seen, Target
from benchmarks.throughput.rounds import AUTO, Cell, Measured, agreed, decided
from benchmarks.throughput.rounds import told as told_of
from benchmarks.throughput.watch import ask

WARM_TOKENS = 16
ENDED_WITHIN_S = 30.0
"""A question beside a load."""

SAID_TOKENS = 4
PAUSE_S = 0.5


@dataclass(frozen=True)
class Sizes:
    """Of one cell; `rounds` at most, and `run_s` each run of a target about. `watched`: a known question is asked
    beside every load, which is one request more at once."""

    adapters: int
    concurrency: int
    prompt: int
    output: int
    rounds: int
    run_s: float
    waves: int
    watched: bool = False


@dataclass
class Runs:
    """What is known while it is measured: of each target the requests of a run, and why it was left out."""

    measured: Measured
    requests: dict[str, int] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    client_cores: dict[str, list[float]] = field(default_factory=dict)
    server_cores: dict[str, list[float]] = field(default_factory=dict)
    same: dict[str, list[bool]] = field(default_factory=dict)


Others = Mapping[str, Callable[[Load], Seen]]
"""Targets by name that are asked in another way than over HTTP."""


def measure(
    stand: Stand, name: str, targets: Sequence[Target], sizes: Sizes, until: float, facts: Mapping[str, Any],
    reference: str = "", kept: Mapping[str, Load] | None = None, others: Others | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A cell as JSON. `kept`: targets that are asked the same in every round; all others get new texts, in a round
    all the same ones. Raises BenchmarkError when no target gave a whole round."""
    kept, others = kept or {}, others or {}
    cell = Cell(name, tuple(targets), lambda _: _load(stand, sizes), facts, reference)
    runs = Runs(Measured(cell), why={one.name: _missing(one) for one in targets if not one.url})
    for target in targets:
        if target.url and target.name not in others:
            _guarded(runs, target, partial(_warm, stand, runs, target, sizes, kept.get(target.name)))
    done = 0
    while done < sizes.rounds and len(runs.why) < len(targets) and (time.monotonic() < until or not done):
        load = _load(stand, sizes)
        for target in rotated([one for one in targets if one.name not in runs.why], done):
            mine = kept.get(target.name, load)
            _guarded(runs, target, partial(_run, stand, runs, target, mine, done, others, sizes.watched))
        done += 1
        say(f"{name}: round {done} of {sizes.rounds}: {_speeds(runs, done - 1)}")
    return _told(runs, cell)


def _told(runs: Runs, cell: Cell) -> dict[str, Any]:
    left = tuple(one for one in cell.targets if one.name not in runs.why and runs.measured.seen.get(one.name))
    if not left:
        raise BenchmarkError("; ".join(dict.fromkeys(runs.why.values())) or "nothing was measured")
    reference = cell.reference if cell.reference in {one.name for one in left} else ""
    runs.measured.cell = replace(cell, targets=left, reference=reference)
    found = told_of(runs.measured)
    for name, one in found["targets"].items():
        one["requests"] = runs.requests.get(name, found["requests"])
        for who, cores in (("client", runs.client_cores), ("server", runs.server_cores)):
            if name in cores:
                one[f"{who}_cores"] = median(cores[name])
        if same := runs.same.get(name):
            one["same_under_load"] = {"answers": len(same), "same": sum(same)}
    return found | {"left_out": runs.why}


def _load(stand: Stand, sizes: Sizes) -> Load:
    return stand.load(
        sizes.adapters, sizes.concurrency, sizes.concurrency * sizes.waves, sizes.prompt, sizes.output
    )


def _guarded(runs: Runs, target: Target, work: Callable[[], None]) -> None:
    try:
        work()
    except (BenchmarkError, OSError, HTTPException) as error:
        runs.why[target.name] = str(error) or type(error).__name__
        say(f"{runs.measured.cell.name}: {target.name} is left out: {error}")


def _warm(stand: Stand, runs: Runs, target: Target, sizes: Sizes, kept: Load | None) -> None:
    """Every adapter is in its slot afterwards; and it is known how long one wave of requests takes."""
    first = max(sizes.concurrency, sizes.adapters)
    load = stand.load(sizes.adapters, sizes.concurrency, first, sizes.prompt, sizes.output)
    seen, _ = stand.asker.run(target, replace(load, output_tokens=min(WARM_TOKENS, sizes.output)))
    _see(target, seen)
    wave_s = (seen.ttft_ms.p50 + sizes.output * seen.itl_ms.p50) / 1e3
    waves = max(1, min(sizes.waves, round(sizes.run_s / max(wave_s, 1e-3))))
    runs.requests[target.name] = kept.requests if kept else sizes.concurrency * waves


def _run(
    stand: Stand, runs: Runs, target: Target, load: Load, turn: int, others: Others, watched: bool
) -> None:  # fmt: skip
    if target.name in others:
        runs.measured.seen.setdefault(target.name, {})[turn] = others[target.name](load)
        return
    load = replace(load, requests=runs.requests[target.name])
    before = decided(target) if target.model == AUTO else Counter[str]()
    same, server_s = runs.same.setdefault(target.name, []), stand.server_s(target)
    with beside(target, load.asked[0], same) if watched else nullcontext(Counter[str]()) as own:
        seen, used = stand.asker.run(target, load)
    _see(target, seen)
    if target.model == AUTO:
        runs.measured.agreed.setdefault(target.name, []).append(agreed(target, load, before, own))
    runs.measured.seen.setdefault(target.name, {})[turn] = seen
    runs.client_cores.setdefault(target.name, []).append(used)
    used_s = stand.server_s(target) - server_s
    runs.server_cores.setdefault(target.name, []).append(used_s / max(seen.took_s, 1e-9))


@contextmanager
def beside(target: Target, asked: Asked, same: list[bool]) -> Iterator[Counter[str]]:
    """Ask one question alone, and again while the block runs; whether it was answered alike is added to `same`.
    Yields how often it was asked.

    In 16 bits they need not be: another batch is added up in another order.
    """
    alone, own = ask(target, asked, SAID_TOKENS), Counter([asked.model])
    done = threading.Event()

    def again() -> None:
        done.wait(PAUSE_S)
        while not done.is_set():
            own[asked.model] += 1
            try:
                now = ask(target, asked, SAID_TOKENS)
                same.append((now.model, now.tokens[:1]) == (alone.model, alone.tokens[:1]))
            except BenchmarkError:
                same.append(False)
            done.wait(PAUSE_S)

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        done.set()
        thread.join(ENDED_WITHIN_S)


def _see(target: Target, seen: Seen) -> None:
    if seen.failed:
        raise BenchmarkError(f"{target.name}: {seen.failed} of {seen.failed + seen.requests} failed: {seen.why}")


def _missing(target: Target) -> str:
    return f"{target.name}: its engine or router is not up"


def _speeds(runs: Runs, turn: int) -> str:
    seen = {name: turns[turn].tokens_per_s for name, turns in runs.measured.seen.items() if turn in turns}
    return ", ".join(f"{name} {speed:.0f}" for name, speed in seen.items()) + " tokens/s"

"""Three engines with the same adapters, and room for all or for few of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stacks
from benchmarks.calls import call, parsed
from benchmarks.cliff.plan import Plan
from benchmarks.processes import BenchmarkError, Fleet, Ports
from benchmarks.throughput import subjects
from benchmarks.throughput.load import Asked, Driver, Target
from benchmarks.throughput.watch import Watch

ALL, IN_MEMORY, ON_DISK = "a slot for each", "few slots", "few slots, few in memory"
"""What happens to an adapter that has no slot when it is asked for: it always has one; it comes from the host's
memory; it is read from disk."""


@dataclass(frozen=True)
class Bench:
    """The engines, which answer alike, and the texts of every adapter."""

    plan: Plan
    targets: tuple[Target, ...]
    texts: Mapping[str, Sequence[str]]
    driver: Driver
    watch: Watch


def room(plan: Plan) -> dict[str, tuple[int, int]]:
    """By engine: `max_loras` and `max-cpu-loras`."""
    most = max(plan.in_use)
    return {ALL: (most, most), IN_MEMORY: (plan.slots, most), ON_DISK: (plan.slots, plan.slots)}


@contextlib.contextmanager
def bench(plan: Plan, folder: Path, first_port: int | None) -> Iterator[Bench]:
    """Everything started, ready and seen to say the same. Raises BenchmarkError."""
    stacks.see_demo()
    texts, ports = subjects.texts(max(plan.in_use)), Ports(first_port)
    adapters = stacks.adapter_folders(folder / "adapters", list(texts))
    labels = dict.fromkeys(texts, "not used: there is no router")
    with Fleet(folder) as fleet:
        say("starting the engines: one or two minutes")
        driver, engines = Driver(fleet), []
        for number, (name, (slots, host)) in enumerate(room(plan).items()):
            engine = {"max_loras": slots, "args": {"max-cpu-loras": host}}
            file = folder / f"engine{number}.yaml"
            stacks.write_stack(file, adapters, labels, (ports.take(), ports.take()), engine=engine)
            engines.append(stacks.served_engine(fleet, name, file, list(texts)))
        stacks.wait_ready(fleet, engines)
        for one in engines:
            see_room(one, *room(plan)[one.name])
        up = Bench(plan, tuple(Target(one.name, one.url) for one in engines), texts, driver, Watch())
        sample = [Asked(own[0], name) for name, own in texts.items()]
        for target in up.targets:
            up.watch.learn(target, sample)
            up.watch.see_the_same(up.targets[0], target)
        yield up


def see_room(engine: stacks.Started, slots: int, host: int) -> None:
    """Raises BenchmarkError when an engine has not the room that is measured, or has not filled it."""
    has = parsed(*call(engine.url, "/lora_select/adapters"))
    found = (has["slots"], has["host_capacity"], has["slots_free"], has["host_free"])
    if found != (slots, host, 0, 0):
        told = "{} slots and {} places in memory, of which {} and {} are free".format(*found)
        raise BenchmarkError(f"{engine.name}: {slots} and {host} are meant, all in use; it has {told}")


def say(line: str) -> None:
    """Progress."""
    print(f"cliff: {line}", file=sys.stderr, flush=True)

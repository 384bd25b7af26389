"""What the load is sent to: the engine itself, the router in three configurations, and its peers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.calls import call
from benchmarks.load import CHAT, ROUTE, Job, LoadClient, Measured
from benchmarks.overhead import router
from benchmarks.overhead.peers import PEERS, NotInstalled, Place
from benchmarks.overhead.plan import Plan
from benchmarks.processes import BenchmarkError, Command, Fleet, Ports, tree
from benchmarks.stub import ANSWER, MODELS
from benchmarks.texts import KNOWN, Fresh
from record.origin import ROOT, checked_out

DIRECT, PLAIN, EVERYTHING, TRACED = "direct", "router", "router, all on", "router, all on, traced"
OURS = (PLAIN, EVERYTHING, TRACED)

JUDGED = {"classified", "below-threshold"}
"""The reasons of decisions that the classifier has made; with any other, its work was left out."""

READY_WITHIN_S = 90
"""LiteLLM takes half a minute where the machine is busy."""

STUB_READY_WITHIN_S = 10


@dataclass(frozen=True)
class Target:
    """Something that answers like an engine."""

    name: str
    port: int
    model: str  # what is asked for
    pids: tuple[int, ...]  # of a proxy, all that work for it
    version: str
    headers: tuple[str, ...] = ()  # lines that only it is sent


@dataclass(frozen=True)
class Skipped:
    """A target that is not measured."""

    name: str
    why: str


@dataclass
class Bench:
    """What all sections share: the stub, the load client, and how to start what stands between them."""

    plan: Plan
    folder: Path
    checkout: Path
    environments: Path
    ports: Ports
    stub_port: int
    stub_pids: tuple[int, ...]
    client: LoadClient
    fresh: Fresh

    @contextlib.contextmanager
    def targets(self, names: Sequence[str]) -> Iterator[tuple[list[Target], list[Skipped]]]:
        """Started and ready, in this order. A peer that is missing or does not come up is skipped. Raises
        BenchmarkError when the router cannot be started, or in the end has decided without its classifier."""
        found: list[Target] = []
        skipped: list[Skipped] = []
        with Fleet(self.folder) as fleet:
            for name in names:
                try:
                    found.append(self._start(fleet, name))
                except NotInstalled as error:
                    skipped.append(Skipped(name, f"not installed: {error}"))
                except BenchmarkError as error:
                    if name in OURS or name == DIRECT:
                        raise
                    skipped.append(Skipped(name, f"installed, but {error}"))
                say(f"{name}: {skipped[-1].why if skipped and skipped[-1].name == name else 'ready'}")
            yield found, skipped
            for target in found:
                if target.name in OURS:
                    see_decisions(target)

    def job(self, target: Target, **settings: Any) -> Job:
        """For a target, its CPU time and the stub's watched."""
        watch = {"target": target.pids, "stub": self.stub_pids}
        return Job(target.port, target.model, key=router.KEY, headers=target.headers, watch=watch, **settings)

    def must(self, target: Target, **settings: Any) -> Measured:
        """Run a job. Raises BenchmarkError when an answer is wrong."""
        measured = self.client.run(self.job(target, **settings))
        if measured.failure:
            raise BenchmarkError(f"{target.name}: {measured.failure}")
        return measured

    def _start(self, fleet: Fleet, name: str) -> Target:
        if name == DIRECT:
            return Target(name, self.stub_port, MODELS[0], (), "the stub itself")
        port = self.ports.take()
        headers: tuple[str, ...] = ()
        if name in OURS:
            everything = name != PLAIN
            config = router.write_config(
                self.folder, port, self.stub_port, everything=everything, traced=name == TRACED
            )
            command, version, model = router.command(self.checkout, config), checked_out(self.checkout), "auto"
            headers = (router.TAG_HEADER,) if everything else ()
        else:
            place = Place(port, self.ports.take(), self.stub_port, self.folder, self.environments)
            peer = PEERS[name](place)
            command, version, model = peer.command, peer.version, MODELS[0]
        process = fleet.start(name, command)
        wait_for_answer(fleet, name, process, port, model)
        if name in OURS:
            _learn(name, port)
        return Target(name, port, model, tuple(tree(process.pid)), version, headers)


@contextlib.contextmanager
def bench(plan: Plan, folder: Path, checkout: Path, environments: Path, first_port: int | None) -> Iterator[Bench]:
    """Stub and load client, running. Raises BenchmarkError."""
    ports = Ports(first_port)
    with Fleet(folder) as fleet:
        port, pids = start_stub(fleet, ports)
        client = LoadClient(fleet)
        yield Bench(plan, folder, checkout, environments, ports, port, pids, client, Fresh())


def start_stub(fleet: Fleet, ports: Ports) -> tuple[int, tuple[int, ...]]:
    """The stub's port and process, when it answers. Raises BenchmarkError."""
    port = ports.take()
    stub = fleet.start("stub", Command((sys.executable, "-m", "benchmarks.stub", "--port", str(port)), {}, ROOT))
    wait_for_answer(fleet, "stub", stub, port, MODELS[0], STUB_READY_WITHIN_S)
    return port, (stub.pid,)


def wait_for_answer(
    fleet: Fleet,
    name: str,
    process: subprocess.Popen[bytes],
    port: int,
    model: str,
    within_s: float = READY_WITHIN_S,
) -> None:
    """Until it forwards a question and the stub's answer comes back. Raises BenchmarkError."""
    body = Job(port, model).body(KNOWN[0])
    deadline, last = time.monotonic() + within_s, "nothing"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise fleet.died(name, process)
        try:
            status, answer = ask(port, CHAT, body)
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
            continue
        if status == 200 and ANSWER in answer:
            return
        last = f"{status}: {answer[:200]}"
        time.sleep(0.1)
    raise BenchmarkError(
        f"{name} does not answer as it should within {within_s:.0f} s; its last answer was {last}"
    )


def ask(
    port: int, path: str, body: object = None, key: str = router.KEY, timeout_s: float = 30
) -> tuple[int, str]:
    """One request of a client of ours, outside any measurement."""
    return call(f"http://127.0.0.1:{port}", path, body, timeout_s, key)


def _learn(name: str, port: int) -> None:
    """Have every known text decided, and see that the decision is kept: only then is "cached" what is measured."""
    for text in KNOWN:
        ask(port, ROUTE, {"text": text})
        status, answer = ask(port, ROUTE, {"text": text})
        if status != 200 or json.loads(answer).get("cached") is not True:
            raise BenchmarkError(f"{name}: a text that it has seen is not cached: {status}: {answer[:200]}")
    if name != PLAIN and ask(port, ROUTE, {"text": KNOWN[0]}, "a stranger's")[0] != 401:
        raise BenchmarkError(f"{name}: it answers without a valid key")


def decisions(metrics: str) -> Counter[str]:
    """By reason, from the router's /metrics."""
    line = re.compile(r'^lora_select_decisions_total\{.*reason="([^"]+)"\} (\S+)$', re.MULTILINE)
    return sum((Counter({reason: int(float(count))}) for reason, count in line.findall(metrics)), Counter())


def see_decisions(target: Target) -> None:
    """Where a decision fails, the base answers: the client sees no difference."""
    status, page = ask(target.port, "/metrics", key=router.ADMIN_KEY)
    made = decisions(page)
    if status != 200 or not made:
        raise BenchmarkError(f"{target.name}: /metrics counts no decisions: {status}: {page[:200]}")
    if others := ", ".join(f"{count} {reason}" for reason, count in made.items() if reason not in JUDGED):
        raise BenchmarkError(f"{target.name}: not every decision was the classifier's: {others} of {made.total()}")


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)

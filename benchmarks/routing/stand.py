"""What is asked: a router for every classifier, in front of the stub or of the demo's engine."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import stacks
from benchmarks.load import ROUTE, LoadClient
from benchmarks.overhead.router import LABELS, command, write_stack
from benchmarks.overhead.targets import Target, ask, start_stub, wait_for_answer
from benchmarks.processes import BenchmarkError, Fleet, Ports, tree
from benchmarks.routing import random_nli
from benchmarks.routing.options import Options
from benchmarks.routing.plan import Plan
from benchmarks.routing.questions import BASE
from benchmarks.texts import Fresh
from record.origin import ROOT, checked_out

PATIENT_S = 120
"""`router.classify_timeout_s`: that a decision is late is no reason to measure another one."""

ENGINE = "engine"


@dataclass(frozen=True)
class Case:
    """A classifier and what it may use."""

    name: str
    classifier: str
    workers: int = 1  # processes of the router
    threads: int = 1  # of torch, in each
    on_engine: bool = False

    @property
    def env(self) -> dict[str, str]:
        """Of the router's process."""
        return {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1"}


EMBEDDING = Case("embedding", "embedding")
NLI = Case("nli", "nli")
CASES = (
    EMBEDDING,
    Case("embedding, 2 processes", "embedding", workers=2),
    NLI,
    Case("nli, 2 threads", "nli", threads=2),
    Case("scoring", "scoring", on_engine=True),
    Case("spectral", "spectral", on_engine=True),
)
"""Those with more of something follow the one that they are compared with."""


@dataclass
class Stand:
    """All that is up, by case, and what is left out and why."""

    plan: Plan
    folder: Path
    ports: Ports
    fleet: Fleet
    stub_port: int
    stub_pids: tuple[int, ...]
    client: LoadClient
    nli: str  # the weights' name or folder
    nli_knows: bool  # they are no random ones
    fresh: Fresh = field(default_factory=Fresh)
    skipped: dict[str, str] = field(default_factory=dict)
    _up: dict[str, Target] = field(default_factory=dict)
    _engine: stacks.Started | None = None

    def targets(self, cases: tuple[Case, ...]) -> dict[str, tuple[Case, Target]]:
        """Started where they are not, and ready. Raises BenchmarkError."""
        if any(case.on_engine for case in cases) and self._engine is None and ENGINE not in self.skipped:
            self._start_engine()
        wanted = [case for case in cases if self._engine or not case.on_engine]
        for case in wanted:
            if case.name not in self._up:
                self._up[case.name] = self._start(case)
                say(f"{case.name}: ready")
        return {case.name: (case, self._up[case.name]) for case in wanted}

    def _start(self, case: Case) -> Target:
        port = self.ports.take()
        settings: dict[str, Any] = {
            "port": port, "classifier": case.classifier, "workers": case.workers, "classify_timeout_s": PATIENT_S
        }  # fmt: skip
        if case.classifier == "nli":
            settings["model"] = self.nli
        file = self.folder / f"{case.name.replace(' ', '-')}.yaml"
        if case.on_engine:
            self._stack(file, settings)
        else:
            write_stack(file, self.stub_port, settings, {})
        started = command(ROOT, file, case.env)
        process = self.fleet.start(case.name, started)
        behind = tuple(tree(self._engine.process.pid)) if case.on_engine and self._engine else ()
        if case.on_engine:
            stacks.wait_ready(self.fleet, [stacks.Started(case.name, url(port), ("auto", *LABELS), process)])
        else:
            wait_for_answer(self.fleet, case.name, process, port, "auto")
        return Target(case.name, port, "auto", (*tree(process.pid), *behind), checked_out(ROOT))

    def _stack(self, file: Path, router: Mapping[str, Any]) -> None:
        assert self._engine
        port = int(self._engine.url.rpartition(":")[2])
        adapters = {name: stacks.DEMO / "adapters" / name for name in LABELS}
        stacks.write_stack(file, adapters, LABELS, (port, router["port"]), router=dict(router))

    def _start_engine(self) -> None:
        """The demo's, with its adapters; without one nothing is asked that needs it."""
        if not self.plan.with_engine:
            self.skipped[ENGINE] = "not in a quick run"
            return
        try:
            stacks.see_demo()
        except BenchmarkError as error:
            self.skipped[ENGINE] = str(error)
            return
        say("engine: starts, a minute perhaps")
        file = self.folder / "engine.yaml"
        adapters = {name: stacks.DEMO / "adapters" / name for name in LABELS}
        # The engine is made ready for what the stack's router will ask it.
        ports = (self.ports.take(), self.ports.take())
        router = {"port": ports[1], "classifier": [case.classifier for case in CASES if case.on_engine]}
        stacks.write_stack(file, adapters, LABELS, ports, router=router)
        engine = stacks.served_engine(self.fleet, ENGINE, file, tuple(LABELS))
        stacks.wait_ready(self.fleet, [engine])
        self._engine = engine


@contextlib.contextmanager
def stand(plan: Plan, folder: Path, options: Options) -> Iterator[Stand]:
    """Stub and load client, running. Raises BenchmarkError."""
    ports = Ports(options.first_port)
    nli = options.nli or (random_nli.REAL if random_nli.at_hand() else "")
    if not nli:
        say(f"nli: {random_nli.REAL} is not at hand: a model of its shape with random weights, for speed alone")
        random_nli.make(folder / "nli", plan.nli, LABELS.values())
    with Fleet(folder) as fleet:
        port, pids = start_stub(fleet, ports)
        where = str(Path(nli).resolve()) if nli and Path(nli).is_dir() else nli
        yield Stand(
            plan, folder, ports, fleet, port, pids, LoadClient(fleet), where or str(folder / "nli"), bool(nli)
        )


def chosen(target: Target, text: str) -> str:
    """The model that a router picks for a text, the base by the name that it has here. Raises BenchmarkError."""
    status, answer = ask(target.port, ROUTE, {"text": text}, timeout_s=PATIENT_S)
    if status != 200 or not (decision := json.loads(answer))["scores"]:
        raise BenchmarkError(f"{target.name}: it did not judge a text: {status}: {answer[:200]}")
    return decision["model"] if decision["model"] in LABELS else BASE


def url(port: int) -> str:
    """Of a server of this machine."""
    return f"http://127.0.0.1:{port}"


def say(line: str) -> None:
    """Progress."""
    print(f"routing: {line}", file=sys.stderr, flush=True)

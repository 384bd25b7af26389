"""What is asked: engines with the demo's models, the router, a merged model, and the notebook way."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import stacks
from benchmarks.calls import call, parsed
from benchmarks.load import ROUTE, Latency
from benchmarks.notebook import Boot, Notebook, Work
from benchmarks.processes import BenchmarkError, Command, Fleet, Ports
from benchmarks.throughput import subjects
from benchmarks.throughput.load import Asked, Driver, Load, Seen, Target
from benchmarks.throughput.plan import DOMAINS, Plan
from benchmarks.throughput.rounds import AUTO, Runner
from benchmarks.throughput.watch import Watch
from record.origin import ROOT

BASE, LORA_ON, DIRECT, LAG, MERGED = "base", "base, LoRA on", "direct", "lag", "merged"
ONE_BY_ONE, BATCHED = "notebook, one by one", "notebook, batched"
UNMEASURED = Latency(0.0, 0.0, 0.0, 0.0, 0)
MERGED_NATS = 1e-3
"""What adding the adapter to the weights may change: float32 is added up in another order."""


@dataclass
class Bench:
    """All that is up, by name, the texts of every adapter, and those who ask."""

    plan: Plan
    targets: dict[str, Target]
    texts: Mapping[str, Sequence[str]]
    driver: Driver
    watch: Watch
    others: dict[str, Runner] = field(default_factory=dict)

    def of(self, *names: str) -> tuple[Target, ...]:
        """Those that are up."""
        return tuple(self.targets[name] for name in names if name in self.targets)


@dataclass(frozen=True)
class NotebookWay:
    """The notebook as one that takes a load: as many requests wait as the load's concurrency."""

    notebook: Notebook
    batch: int

    def run(self, _target: Target, load: Load) -> Seen:
        """Its latencies are not measured."""
        asked = [(one.text, one.model) for one in load.asked[: load.requests]]
        done = self.notebook.run(Work(asked, load.output_tokens, self.batch, chat=True))
        failed = load.requests - done.requests
        return Seen(
            done.tokens_per_s, done.requests / done.took_s, UNMEASURED, UNMEASURED, done.requests, failed,
            done.took_s, "it took too long" if failed else "",
        )  # fmt: skip


@contextlib.contextmanager
def bench(plan: Plan, sections: Sequence[str], folder: Path, first_port: int | None) -> Iterator[Bench]:
    """Everything started, ready and seen to say the same. Raises BenchmarkError."""
    stacks.see_demo()
    ports = Ports(first_port)
    with Fleet(folder) as fleet:
        say("starting the engines: one or two minutes")
        texts = subjects.texts(plan.adapters)
        driver = Driver(fleet)
        notebook = Notebook(fleet) if "notebook" in sections else None
        file, models = _stack(folder, list(texts), (ports.take(), ports.take()))
        served = stacks.served_engine(fleet, "engine", file, models)
        plain = stacks.plain_engine(fleet, "plain engine", stacks.DEMO / "base", ports.take())
        servers = [served, plain]
        if "merged" in sections:
            servers.append(stacks.plain_engine(fleet, "merged engine", _merged(fleet, folder), ports.take()))
        stacks.wait_ready(fleet, servers)
        router = stacks.started_router(fleet, file, models)
        stacks.wait_ready(fleet, [router])
        up = Bench(plan, _targets(served, plain, router), right_texts(router.url, texts), driver, Watch())
        if "merged" in sections:
            up.targets[MERGED] = Target(MERGED, servers[-1].url, stacks.BASE)
        if notebook:
            _open(up, notebook)
        _learn(up)
        yield up


def right_texts(router: str, texts: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Those that the router gives to their adapter, and knows from now on. Raises BenchmarkError where an adapter
    has none."""
    kept: dict[str, tuple[str, ...]] = {}
    for model, own in texts.items():
        for text in own:
            parsed(*call(router, ROUTE, {"text": text}))
            decision = parsed(*call(router, ROUTE, {"text": text}))
            if not decision["cached"]:
                raise BenchmarkError(f"the router has seen a text and does not know it: {text}")
            if decision["model"] == model:
                kept[model] = (*kept.get(model, ()), text)
        if model not in kept:
            raise BenchmarkError(f"the router gives none of its texts to the adapter {model}")
    return kept


def _stack(folder: Path, names: Sequence[str], ports: tuple[int, int]) -> tuple[Path, list[str]]:
    labels = stacks.demo_labels() | {name: f"{name}, {label}" for name, label in subjects.COPIES.items()}
    adapters = stacks.adapter_folders(folder / "adapters", names)
    lag = {"library": list(subjects.DOMAINS), "k": 2}
    return stacks.write_stack(folder / "stack.yaml", adapters, labels, ports, lag=lag), [*names, LAG]


def _targets(served: stacks.Started, plain: stacks.Started, router: stacks.Started) -> dict[str, Target]:
    every = (
        Target(BASE, plain.url, stacks.BASE),
        Target(LORA_ON, served.url, stacks.BASE),
        Target(DIRECT, served.url),
        Target(AUTO, router.url, AUTO),
        Target(LAG, router.url, LAG),
    )
    return {target.name: target for target in every}


def _merged(fleet: Fleet, folder: Path) -> Path:
    """The base with the first adapter in its weights."""
    adapter, out = stacks.DEMO / "adapters" / subjects.DOMAINS[0], folder / "merged"
    argv = (
        sys.executable,
        "-m",
        "benchmarks.throughput.merged",
        str(stacks.DEMO / "base"),
        str(adapter),
        str(out),
    )
    process = fleet.start("merge", Command(argv, {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, ROOT))
    if process.wait():
        raise fleet.died("merge", process)
    return out


def _open(up: Bench, notebook: Notebook) -> None:
    adapters = {name: str(stacks.DEMO / "adapters" / name) for name in subjects.DOMAINS}
    # One thread is its best case: with two, which torch takes by itself here, such a small base is slower.
    notebook.load(Boot(str(stacks.DEMO / "base"), adapters, threads=1))
    for name, batch in ((ONE_BY_ONE, 1), (BATCHED, up.plan.many)):
        up.targets[name] = Target(name, "")
        up.others[name] = NotebookWay(notebook, batch)


def _learn(up: Bench) -> None:
    """The watch's questions, and whether those say the same who must. Raises BenchmarkError."""
    sample = [Asked(own[0], model) for model, own in up.texts.items()]
    domains = sample[:DOMAINS]
    for target in up.of(BASE, LORA_ON, LAG):
        up.watch.learn(target, domains)
    for target in up.of(DIRECT, AUTO):
        up.watch.learn(target, [*domains, *sample[DOMAINS:][-1:]])
    for target in up.of(MERGED):
        up.watch.learn(target, sample[:1])
        up.watch.see_the_same(up.targets[DIRECT], target, MERGED_NATS)
    up.watch.see_the_same(up.targets[BASE], up.targets[LORA_ON])
    up.watch.see_the_same(up.targets[DIRECT], up.targets[AUTO])


def say(line: str) -> None:
    """Progress."""
    print(f"throughput: {line}", file=sys.stderr, flush=True)

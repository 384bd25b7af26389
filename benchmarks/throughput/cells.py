"""Which loads each section puts on which targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from benchmarks.throughput import subjects
from benchmarks.throughput.load import Load, Target, uniform, zipf
from benchmarks.throughput.plan import DOMAINS
from benchmarks.throughput.rounds import AUTO, Cell
from benchmarks.throughput.targets import BASE, BATCHED, DIRECT, LAG, LORA_ON, MERGED, ONE_BY_ONE, Bench

UNIFORM, ZIPF = "uniform", "Zipf 1.0"
KNOWN, NEW = "known", "new"


def concurrency(bench: Bench) -> list[Cell]:
    """Every way to be served, one request at a time to 64 at once."""
    targets = bench.of(BASE, LORA_ON, DIRECT, AUTO, LAG)
    return [cell(bench, targets, at=at) for at, _ in bench.plan.loads]


def uncached(bench: Bench) -> list[Cell]:
    """Texts that the router has never seen, so that MiniLM reads each: to the engine directly, the same texts."""
    return [cell(bench, bench.of(DIRECT, AUTO), at=at, texts=NEW) for at in (1, bench.plan.many)]


def adapters(bench: Bench) -> list[Cell]:
    """Few and many adapters in one batch, and some of them much more often than others."""
    cells = [cell(bench, bench.of(DIRECT, AUTO), active=active) for active in bench.plan.active]
    return cells + [cell(bench, bench.of(DIRECT, AUTO), active=active, skew=ZIPF) for active in bench.plan.skewed]


def merged(bench: Bench) -> list[Cell]:
    """One adapter alone: in the weights of an engine of its own, beside it as an adapter."""
    targets = bench.of(BASE, DIRECT, MERGED)
    return [cell(bench, targets, at=at, active=1) for at in (1, bench.plan.many)]


def notebook(bench: Bench) -> list[Cell]:
    """transformers and PEFT: one request at a time, and a batch for each adapter of those that wait."""
    plan = bench.plan
    return [
        cell(bench, bench.of(ONE_BY_ONE), requests=plan.notebook_requests),
        cell(bench, bench.of(BATCHED), requests=plan.many),
    ]


SECTIONS: Mapping[str, Callable[[Bench], list[Cell]]] = {
    "concurrency": concurrency,
    "uncached": uncached,
    "adapters": adapters,
    "merged": merged,
    "notebook": notebook,
}


def cell(
    bench: Bench,
    targets: Sequence[Target],
    *,
    at: int = 0,
    active: int = DOMAINS,
    skew: str = UNIFORM,
    texts: str = KNOWN,
    requests: int = 0,
) -> Cell:
    """At the plan's usual concurrency, where none is given, with as many requests as it has there."""
    plan, at = bench.plan, at or bench.plan.many
    requests = requests or plan.requests(at)
    own = dict(islice(bench.texts.items(), active))

    def load(turn: int) -> Load:
        asked = subjects.fresh(own, requests, f"{at}, round {turn}") if texts == NEW else own
        return Load((zipf if skew == ZIPF else uniform)(asked, requests), at, requests, plan.output_tokens)

    name = f"{at} at once, {active} adapter{'s' * (active > 1)}, {skew}, {texts} texts"
    return Cell(name, tuple(targets), load, {"active": active, "skew": skew, "texts": texts}, DIRECT)

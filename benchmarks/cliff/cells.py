"""How many adapters are in use, in which order."""

from __future__ import annotations

from itertools import islice

from benchmarks.cliff.engines import ALL, Bench
from benchmarks.throughput.load import Load, grouped, uniform
from benchmarks.throughput.rounds import Cell

RANDOM, GROUPED = "random order", "grouped by adapter"


def cells(bench: Bench) -> list[Cell]:
    """Each number of adapters in both orders."""
    return [_cell(bench, in_use, order) for in_use in bench.plan.in_use for order in (RANDOM, GROUPED)]


def _cell(bench: Bench, in_use: int, order: str) -> Cell:
    plan, texts = bench.plan, dict(islice(bench.texts.items(), in_use))

    def load(turn: int) -> Load:
        asked = uniform(texts, plan.requests, seed=turn)
        if order == GROUPED:
            asked = grouped(asked)
        return Load(asked, plan.concurrency, plan.requests, plan.output_tokens)

    facts = {"in_use": in_use, "times": in_use / plan.slots, "order": order}
    return Cell(
        f"{in_use} adapters, {in_use / plan.slots:g} times the slots, {order}", bench.targets, load, facts, ALL
    )

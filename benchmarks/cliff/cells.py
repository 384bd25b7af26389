"""How many adapters are in use, in which order; and from how many on an engine with few slots is slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from benchmarks.cliff.engines import ALL, Bench
from benchmarks.throughput.load import Load, grouped, uniform
from benchmarks.throughput.rounds import Cell

RANDOM, GROUPED = "random order", "grouped by adapter"
SLOWER = 0.9
"""Of the speed with a slot for each: below it the cliff has begun."""


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


def begins(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """By engine and order: the first working set, in slots, at which it is slower; None where it never is."""
    found: dict[str, dict[str, float | None]] = {}
    for cell in cells:
        for name, target in cell["targets"].items():
            if name == ALL or cell["times"] <= 1:  # there all have a slot, whatever the speed was
                continue
            orders = found.setdefault(name, {})
            orders.setdefault(cell["order"], None)
            if orders[cell["order"]] is None and target["speed_of_reference"]["median"] < SLOWER:
                orders[cell["order"]] = cell["times"]
    return found

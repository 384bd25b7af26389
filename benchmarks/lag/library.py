"""Section `library`: one projection, libraries of 10 to 1,000 adapters, and three ways to choose from them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.lag.plan import Plan
from benchmarks.processes import BenchmarkError
from benchmarks.stats import Spread, rotated

if TYPE_CHECKING:
    import torch

ALL, GATHERED, GROUPED = "all", "gathered", "grouped"
"""As served: z and the scores of all. Arrow's table, then the candidates alone: with copies of each token's
weights, or one product for each adapter."""

MOST_GATHERED = 1 << 30
"""Bytes of copied weights."""

LEAST_S = 0.005
"""Of CPU time, for a number."""


@dataclass(frozen=True)
class Library:
    """One projection of n adapters; see `lora_select_vllm.lag` and `arrow`."""

    a: torch.Tensor
    w: torch.Tensor
    v1: torch.Tensor

    @classmethod
    def random(cls, count: int, rank: int, inputs: int) -> Library:
        """As many outputs as inputs."""
        import torch
        from lora_select_vllm.lag import constants

        from benchmarks.lag.arrow import table

        random = torch.Generator().manual_seed(0)
        a = torch.randn(count, rank, inputs, generator=random) / inputs**0.5
        w = torch.stack([constants(one, torch.randn(inputs, rank, generator=random)) for one in a])
        return cls(a, w, table(a, w))

    def first(self, count: int) -> Library:
        """So many of them."""
        return Library(self.a[:count], self.w[:count], self.v1[:count])

    @property
    def megabytes(self) -> dict[str, float]:
        """`a` is there with or without LAG."""
        return {name: getattr(self, name).nbytes / 1e6 for name in ("a", "w", "v1")}


def section(plan: Plan) -> dict[str, Any]:
    """CPU time and memory, one thread. Raises BenchmarkError where the ways do not choose the same."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cells = []
        for inputs in plan.inputs:
            for rank in plan.ranks:
                print(f"library: in {inputs}, r {rank}", file=sys.stderr, flush=True)
                everything = Library.random(max(plan.libraries), rank, inputs)
                for count in plan.libraries:
                    cells += _measured(plan, everything.first(count))
    finally:
        torch.set_num_threads(threads)
    return {"cells": cells}


def _measured(plan: Plan, library: Library) -> list[dict[str, Any]]:
    import torch

    count, rank, inputs = library.a.shape
    found = []
    for tokens in plan.tokens:
        x = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(tokens))
        for k in sorted({min(k, count) for k in plan.kept}):
            ways = ways_of(library, x, k)
            if tokens * k * rank * inputs * 4 > MOST_GATHERED:
                del ways[GATHERED]
            _see_the_same(ways)
            of_token = {name: asdict(spread) for name, spread in _us(ways, tokens, plan.library_rounds).items()}
            found.append(
                {"n": count, "rank": rank, "inputs": inputs, "tokens": tokens, "k": k}
                | {"us_a_token": of_token, "mb": library.megabytes, "z_mb": tokens * count * rank * 4 / 1e6}
            )
    return found


def ways_of(library: Library, x: torch.Tensor, k: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Each gives the chosen adapter of every token of `x` [T, in]."""
    import torch
    from lora_select_vllm.lag import route

    from benchmarks.lag.arrow import candidates, pick

    a, w, v1 = library.a, library.w, library.v1
    member = torch.ones(len(x), len(a), dtype=torch.bool)
    projection, many = torch.zeros(len(x), dtype=torch.bool), torch.full((len(x),), k)

    def of_all() -> torch.Tensor:
        z = (x @ a.flatten(0, 1).T).unflatten(1, (len(a), -1))
        return route(z, w, member, many, projection)

    def gathered() -> torch.Tensor:
        kept = candidates(x, v1, member, k)
        z = torch.einsum("tkri,ti->tkr", a[kept], x)
        rows = w[:, 1 : 1 + a.shape[1]][kept]
        best = torch.einsum("tkrs,tks->tkr", rows, z).norm(dim=2).argmax(dim=1, keepdim=True)
        return kept.gather(1, best).squeeze(1)

    return {ALL: of_all, GATHERED: gathered, GROUPED: lambda: pick(x, v1, a, w, member, k, projection)[0]}


def _see_the_same(ways: dict[str, Callable[[], torch.Tensor]]) -> None:
    first, *others = [(name, way()) for name, way in ways.items()]
    for name, chosen in others:
        if (chosen != first[1]).float().mean() > 0.01:  # float32 turns near ties
            raise BenchmarkError(f"{name} does not choose what {first[0]} chooses")


def _us(ways: Mapping[str, Callable[[], torch.Tensor]], tokens: int, rounds: int) -> dict[str, Spread]:
    """Of a token, of CPU time; every round asks all ways, and begins with another one."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in rotated(list(ways), turn):
            took[name].append(_once_us(ways[name]) / tokens)
    return {name: Spread.of(values) for name, values in took.items()}


def _once_us(way: Callable[[], torch.Tensor]) -> float:
    began, calls = time.process_time(), 0
    while calls == 0 or (time.process_time() - began < LEAST_S):
        way()
        calls += 1
    return (time.process_time() - began) / calls * 1e6

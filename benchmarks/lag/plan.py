"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.lag.base import Shape


@dataclass(frozen=True)
class Plan:
    """Sizes of both sections."""

    shape: Shape
    adapters: int
    k: int  # of LAG in section `wrapper`
    rounds: int
    batches: tuple[int, ...]
    prompt: int  # tokens of a prefill that is measured
    steps: int  # of a decode
    libraries: tuple[int, ...]  # adapters
    ranks: tuple[int, ...]
    inputs: tuple[int, ...]
    tokens: tuple[int, ...]  # scored at once
    kept: tuple[int, ...]  # k in section `library`
    library_rounds: int


FULL = Plan(
    shape=Shape(hidden=768, inner=2048, layers=12, heads=12, vocabulary=4096), adapters=8, k=4, rounds=7,
    batches=(1, 8, 32), prompt=512, steps=10, libraries=(10, 30, 100, 300, 1000), ranks=(6, 16),
    inputs=(768, 4096), tokens=(1, 8, 512), kept=(3, 20), library_rounds=5,
)  # fmt: skip

QUICK = Plan(
    shape=Shape(hidden=128, inner=256, layers=2, heads=2, vocabulary=1024), adapters=3, k=2, rounds=2,
    batches=(1, 8), prompt=64, steps=4, libraries=(5, 40), ranks=(6,), inputs=(96,),
    tokens=(1, 8), kept=(3,), library_rounds=2,
)  # fmt: skip

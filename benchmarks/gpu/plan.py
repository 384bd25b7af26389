"""How much is measured: on a GPU a model of 7 B parameters, on a CPU a tiny one, only to see that all works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.gpu.model import MISTRAL_7B, TINY, Shape


@dataclass(frozen=True)
class Plan:
    """Sizes. `allotted`: seconds of each block at most, in the order in which they run: the most telling first."""

    device: str
    shape: Shape
    allotted: Mapping[str, float]
    counts: tuple[int, ...]  # adapters in use, block `counts`
    active: int  # adapters in use in all other blocks
    slots: int  # of the engine that they are in
    many: int  # slots of the engine of block `counts`
    library: int  # of LAG
    k: int
    lags: tuple[tuple[int, int], ...]  # size and k of other libraries, block `lag`
    lag_rows: tuple[int, ...]  # concurrency in it
    concurrency: int
    rows: tuple[int, ...]  # concurrency in block `latency`
    cliff: tuple[int, ...]  # adapters in use of one engine
    prompt: int  # tokens
    output: int
    prefill: tuple[int, ...]  # tokens of a prompt, block `roofline`
    rounds: int
    run_s: float  # of one target in one round, about
    waves: int  # requests of each connection in it, at most
    router_workers: int
    kv_bytes: int
    boot_s: float  # within which every engine is up

    @property
    def most(self) -> int:
        """Adapters that are made."""
        return max(*self.counts, *self.cliff, self.active)


GPU = Plan(
    device="cuda", shape=MISTRAL_7B,
    allotted={"modes": 140, "roofline": 30, "lag": 40, "notebook": 75, "counts": 60, "latency": 50, "cliff": 45},
    counts=(3, 32, 128), active=8, slots=8, many=128, library=8, k=4, lags=((8, 1), (8, 8), (4, 4)),
    lag_rows=(1, 8), concurrency=64, rows=(1, 8, 32), cliff=(8, 12, 16, 24, 32), prompt=128, output=128,
    prefill=(512, 2048), rounds=5, run_s=2.4, waves=2, router_workers=4, kv_bytes=2_300_000_000, boot_s=240,
)  # fmt: skip

CPU = Plan(
    device="cpu", shape=TINY,
    allotted={"modes": 60, "roofline": 60, "lag": 60, "notebook": 120, "counts": 60, "latency": 60, "cliff": 60},
    counts=(3,), active=2, slots=2, many=3, library=2, k=2, lags=((2, 1),), lag_rows=(1, 2), concurrency=2,
    rows=(1, 2), cliff=(2, 4), prompt=48, output=4, prefill=(64,), rounds=2, run_s=0.2, waves=2, router_workers=1,
    kv_bytes=64_000_000, boot_s=900,
)  # fmt: skip

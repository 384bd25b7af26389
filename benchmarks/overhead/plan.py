"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes of every section; times in seconds."""

    with_peers: bool
    rounds: int
    connections: tuple[int, ...]
    warm_s: float
    window_s: float
    stream_window_s: float
    stream_lengths: tuple[int, int]
    pause_ms: int
    cell_budget_s: float  # a target that has used this up in one scenario skips its other rounds
    miss_window_s: float
    miss_every: int
    uncached_texts: int
    memory_cached: int  # texts; in full, as many as the caches hold as they come
    memory_requests: int
    memory_steps: int

    @property
    def many(self) -> int:
        """Connections where there is only one load."""
        return min(MANY, max(self.connections))


FULL = Plan(
    with_peers=True, rounds=5, connections=(1, 16, 64), warm_s=0.1, window_s=0.8, stream_window_s=0.6,
    stream_lengths=(10, 110), pause_ms=5, cell_budget_s=10, miss_window_s=1.5, miss_every=100,
    uncached_texts=120, memory_cached=10_000, memory_requests=100_000, memory_steps=40,
)  # fmt: skip

QUICK = Plan(
    with_peers=False, rounds=2, connections=(1, 4), warm_s=0.02, window_s=0.1, stream_window_s=0.1,
    stream_lengths=(2, 12), pause_ms=2, cell_budget_s=10, miss_window_s=0.3, miss_every=20,
    uncached_texts=5, memory_cached=50, memory_requests=400, memory_steps=4,
)  # fmt: skip

MANY = 16
"""Connections at which the bars are held; a quick plan has fewer."""

UNCACHED_TOKENS = (20, 64, 128, 400)

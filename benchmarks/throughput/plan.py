"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes; `loads` are concurrencies, each with the requests of a load."""

    rounds: int
    output_tokens: int
    loads: tuple[tuple[int, int], ...]
    adapters: int  # that are loaded
    active: tuple[int, ...]  # of them, in a load
    skewed: tuple[int, ...]  # the same, by Zipf's law
    notebook_requests: int  # one by one

    @property
    def many(self) -> int:
        """Concurrency where there is only one, and where the bars are held."""
        return max(at for at, _ in self.loads if at <= MANY)

    def requests(self, at: int) -> int:
        """Of a load, at a concurrency of the plan's."""
        return dict(self.loads)[at]


MANY = 32
DOMAINS = 3
"""Active adapters where their number is not what is varied."""

FULL = Plan(
    rounds=5, output_tokens=40, loads=((1, 8), (8, 32), (32, 96), (64, 128)), adapters=32, active=(1, 3, 8, 32),
    skewed=(8, 32), notebook_requests=8,
)  # fmt: skip

QUICK = Plan(
    rounds=1, output_tokens=8, loads=((1, 2), (8, 16)), adapters=4, active=(1, 4), skewed=(4,), notebook_requests=2
)

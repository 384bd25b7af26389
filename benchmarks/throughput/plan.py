"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes; `requests` are those of a load at each concurrency."""

    rounds: int
    output_tokens: int
    requests: dict[int, int]
    adapters: int  # that are loaded
    active: tuple[int, ...]  # of them, in a load
    skewed: tuple[int, ...]  # the same, by Zipf's law
    notebook_requests: int  # one by one

    @property
    def many(self) -> int:
        """Concurrency where there is only one, and where the bars are held."""
        return max(one for one in self.requests if one <= MANY)


MANY = 32
DOMAINS = 3
"""Active adapters where their number is not what is varied."""

FULL = Plan(
    rounds=5, output_tokens=48, requests={1: 8, 8: 32, 32: 96, 64: 128}, adapters=32, active=(1, 8, 32),
    skewed=(8, 32), notebook_requests=8,
)  # fmt: skip

QUICK = Plan(
    rounds=1, output_tokens=8, requests={1: 2, 8: 16}, adapters=4, active=(1, 4), skewed=(4,), notebook_requests=2
)

"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes. `times`: adapters in use, in slots; `concurrency` is a few requests for each slot."""

    slots: int
    times: tuple[float, ...]
    concurrency: int
    requests: int
    output_tokens: int
    rounds: int

    @property
    def in_use(self) -> tuple[int, ...]:
        """Adapters."""
        return tuple(round(times * self.slots) for times in self.times)


FULL = Plan(slots=4, times=(1, 1.5, 2, 4), concurrency=16, requests=128, output_tokens=24, rounds=5)
QUICK = Plan(slots=2, times=(1, 2), concurrency=8, requests=16, output_tokens=4, rounds=1)

"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Boots of a whole stack, and adapters added to each and removed again."""

    boots: int
    live: int


FULL = Plan(boots=5, live=5)
QUICK = Plan(boots=1, live=1)

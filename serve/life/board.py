"""What routers are told of the adapters, and which of them have taken it in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WAIT_S = 10.0
"""Of a router for news."""

FORGET_S = LONGEST_WAIT_S + 5
"""A router that has not asked for so long is gone."""


class Board:
    """A counter of changes. A router asks for what comes after the state that it has taken in, and waits for it:
    its question is its acknowledgement, so a removal knows when nobody chooses the adapter any more."""

    def __init__(self) -> None:
        self._generation = 0
        self._changed = threading.Condition()
        self._routers: dict[str, tuple[int, float]] = {}

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around every change of what is told."""
        with self._changed:
            yield
            self._generation += 1
            self._changed.notify_all()

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Around what must be of one state; yields its generation."""
        with self._changed:
            yield self._generation

    def wait_for_news(self, after: int, router: str) -> None:
        """Until something has changed since the generation `after`, which `router` has taken in; LONGEST_WAIT_S
        at most."""
        with self._changed:
            self._routers[router] = (after, time.monotonic())
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._generation != after, LONGEST_WAIT_S)

    def wait_taken_in(self, within_s: float) -> None:
        """Until every router has taken in what is told now, or the time is over."""
        with self._changed:
            wanted = self._generation
            self._changed.wait_for(lambda: all(seen >= wanted for seen in self._living()), within_s)

    def _living(self) -> Iterator[int]:
        oldest = time.monotonic() - FORGET_S
        return (generation for generation, asked in self._routers.values() if asked > oldest)

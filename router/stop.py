"""Signals to end, counted."""

from __future__ import annotations

import time
from types import FrameType

TOGETHER_S = 0.3
"""Signals so close are one wish: a terminal tells a whole group of processes, and parents their children."""


class Stop:
    """A signal handler, which only records: the first wish drains, the second ends at once."""

    def __init__(self) -> None:
        self.wishes = 0
        self._last = float("-inf")

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        self.wishes += now - self._last > TOGETHER_S
        self._last = now

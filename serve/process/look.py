"""A question asked in a thread of its own, so that an answer that never comes holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Look(Generic[T]):
    """Asks again and again, one question at a time, `every_s` after the last answer."""

    def __init__(self, ask: Callable[[], T], failed: Callable[[Exception], T], every_s: float) -> None:
        """`failed` is the answer where the question raises."""
        self._ask, self._failed, self._every_s = ask, failed, every_s
        self._answers: SimpleQueue[T] = SimpleQueue()
        self._asking = False
        self._next = 0.0

    def answer(self, now: float) -> T | None:
        """What has been answered since the last call, if anything; asks when it is time."""
        if not self._asking and now >= self._next:
            self._asking = True
            threading.Thread(target=self._run, name="look", daemon=True).start()
        try:
            got = self._answers.get_nowait()
        except Empty:
            return None
        self._asking, self._next = False, now + self._every_s
        return got

    def _run(self) -> None:
        try:
            got = self._ask()
        except Exception as error:
            got = self._failed(error)
        self._answers.put(got)

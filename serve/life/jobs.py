"""One thread that does one thing after the other, for whoever asks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any


class Jobs:
    """A queue and its thread."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def do(self, work: Callable[[], Any]) -> Future[Any]:
        """What it returns or raises; where that is a Future, as soon as that one is done."""
        future: Future[Any] = Future()
        self._jobs.put((work, future))
        return future

    def close(self) -> None:
        """Finish what was asked for, and end."""
        self._jobs.put(None)

    def _work(self) -> None:
        while job := self._jobs.get():
            work, future = job
            try:
                result = work()
            except Exception as error:  # whoever asked is told; the thread lives on
                future.set_exception(error)
                continue
            if isinstance(result, Future):  # it goes on elsewhere
                result.add_done_callback(partial(_done, future))
            else:
                future.set_result(result)


def _done(future: Future[Any], _: Future[Any]) -> None:
    future.set_result(None)

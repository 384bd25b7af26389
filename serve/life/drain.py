"""Versions that nobody can ask for any more: unloaded when their last request is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from serve.life.api import EngineError
from serve.life.loader import Loader

ARRIVE_S = 0.5
"""From a name's end until the requests that still got it are counted: vLLM tokenizes a prompt in between."""

LOOK_S = 0.1


Leaving = tuple[str, str]
"""A name, and the version that it has no longer."""


class Drains:
    """Each in a thread of its own: a long answer of one adapter holds up no other."""

    def __init__(self, loader: Loader, say: Callable[[str], None], longest_s: float) -> None:
        """`longest_s`: how long an answer may take."""
        self._loader, self._say, self._longest_s = loader, say, longest_s
        self._draining: set[Leaving] = set()

    def start(self, leaving: Sequence[Leaving], done: Callable[[], None] = lambda: None) -> Future[None]:
        """One after the other; `done` is called, and the future is set, when all are unloaded."""
        future: Future[None] = Future()
        self._draining |= set(leaving)

        def run() -> None:
            if leaving:
                time.sleep(ARRIVE_S)
            for name, version in leaving:
                self._unload(name, version)
            done()
            future.set_result(None)

        threading.Thread(target=run, name="drain", daemon=True).start()
        return future

    def cancel(self, name: str, version: str) -> None:
        """The same weights are wanted again."""
        self._draining.discard((name, version))

    def _unload(self, name: str, version: str) -> None:
        deadline = time.monotonic() + self._longest_s
        while (name, version) in self._draining:
            try:
                self._loader.unload(name, version)
                break
            except EngineError as error:
                if error.status != 409 or time.monotonic() > deadline:
                    self._say(f"{name}: version {version} was not unloaded: {error}")
                    break
            time.sleep(LOOK_S)
        self._draining.discard((name, version))

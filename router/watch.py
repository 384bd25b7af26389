"""Nobody computes for a client that has gone, nor for ever: what ends a request that is under way."""

from __future__ import annotations

import asyncio

from router.asgi import ClientGone, Receive

PATIENCE_S = 0.02
"""An answer that is there sooner needs neither a second task beside its own nor a deadline."""

LINGER_S = 1.0
"""For the end of an answer that its client has seen and left: the engine's connection can then be kept."""


class Watch:
    """Cancels the block when the client disconnects, or after `within_s`, which closes the upstream request.

    Raises ClientGone, unless `end` was called before, or TimeoutError. `until`: the loop's time at which it does.
    """

    def __init__(self, receive: Receive, within_s: float) -> None:
        self._receive, self._within_s = receive, within_s
        self._done = self._ended = False
        self._why: type[Exception] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self.until = self._loop.time() + self._within_s
        self._timer = self._loop.call_later(min(PATIENCE_S, self._within_s), self._start)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._done = True
        self._timer.cancel()
        if self._watcher:
            self._watcher.cancel()
        if self._why and kind is asyncio.CancelledError and self._task:
            self._task.uncancel()
            if self._ended and self._why is ClientGone:
                return True
            raise self._why from None
        return False

    def end(self) -> None:
        """The client has all that it waits for, and may go. What is left has its time all the same."""
        self._ended = True

    def _start(self) -> None:
        self._watcher = self._loop.create_task(self._watch())
        self._timer = self._loop.call_later(max(0.0, self._within_s - PATIENCE_S), self._cancel, TimeoutError)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # A server reports the end of a complete answer as a disconnect too.
        if self._ended:
            self._timer.cancel()
            self._timer = self._loop.call_later(LINGER_S, self._cancel, ClientGone)
        else:
            self._cancel(ClientGone)

    def _cancel(self, why: type[Exception]) -> None:
        if self._task and not self._done:
            self._done, self._why = True, why
            self._task.cancel()

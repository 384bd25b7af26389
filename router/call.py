"""A request that has been decided, and the way back to its client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from router.asgi import Headers, Request
from router.decide import Routed
from router.endpoints import Endpoint
from router.errors import ApiError
from router.life import Life
from router.sse import error_event

LAST_WORD_S = 0.8
"""For a client to take the news that its time is over."""


@dataclass(slots=True)
class Call:
    """What to ask, and where the answer goes. `complete` is called when nothing is missing.

    `explain`: how closely the client asks which adapter gave each token (router/attribution.py). `until`: the
    event loop's time at which the answer is cut off. `disclaimer`: what the adapter's answers are told with.
    """

    endpoint: Endpoint
    body: dict[str, Any]
    headers: dict[str, str]
    routed: Routed
    request: Request
    life: Life
    complete: Callable[[], None] = lambda: None
    explain: bytes | None = None
    until: float = math.inf
    hide_usage: bool = False
    disclaimer: str | None = None
    started: bool = False

    async def start(self, status: int, headers: Headers) -> None:
        """The engine's headers and our own."""
        ours = self._own_headers()
        if self.disclaimer and status < 400:
            ours.append((b"x-lora-select-disclaimer", _percent_encoded(self.disclaimer)))
        names = {name for name, _ in ours}
        kept = [pair for pair in headers if pair[0] not in names]
        self.started, self.life.status = True, status
        if status >= 400:
            self.life.error = str(status)
        self.life.answering()
        await self.request.send({"type": "http.response.start", "status": status, "headers": [*kept, *ours]})

    async def send(self, data: bytes, more: bool = False) -> None:
        """The body, or as much of it."""
        await self.request.send({"type": "http.response.body", "body": data, "more_body": more})

    async def fail(self, error: ApiError) -> None:
        """An error page, or where the answer has started the stream's last event."""
        self.life.error = error.code or error.kind
        anthropic = self.endpoint.anthropic
        if self.started:
            await self.send(error_event(error.body(anthropic), anthropic), more=True)
            await self.send(b"")
        else:
            self.life.status = error.status
            await self.request.fail(error, self._own_headers(), anthropic)

    async def last_word(self, error: ApiError) -> None:
        """End what nothing else bounds any more: a client that does not even read the error is cut off."""
        try:
            async with asyncio.timeout(LAST_WORD_S):
                await self.fail(error)
        except TimeoutError:
            await self.request.abort()

    def _own_headers(self) -> Headers:
        cache: Headers = [(b"x-lora-select-cache", self.life.cache.encode())] if self.life.cache else []
        return [*self.request.identity, *self.routed.headers, *cache]


@lru_cache(maxsize=256)
def _percent_encoded(text: str) -> bytes:
    """As encodeURIComponent has it: a header holds latin-1 alone, and may be split at its commas."""
    return quote(text, safe="").encode()

"""The little of HTTP that the router needs on top of ASGI; no framework on the hot path."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Container, MutableMapping
from typing import Any

import orjson

from router.errors import ApiError, BadRequest, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}")
ABORT = "abort"
"""The key, in a scope's state, of the server's way to drop a connection."""

DRAIN = 8
"""A body of up to 8 times the limit is read to its end and dropped: many clients, asked to stop in the middle
of sending, report a broken pipe instead of the 413."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Request:
    """One HTTP request, and the way back to its client. `identity` goes along with every answer."""

    __slots__ = ("_headers", "_state", "identity", "method", "path", "query", "receive", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._state: dict[str, Any] = scope.get("state") or {}
        self.receive, self.send = receive, send
        given = self.header(b"x-request-id")
        self.identity: Headers = [(b"x-request-id", given if given and REQUEST_ID.fullmatch(given) else _new_id())]

    @property
    def id(self) -> str:
        """The client's `x-request-id`, or one of our own."""
        return self.identity[0][1].decode()

    def header(self, name: bytes) -> bytes | None:
        """A header by its lower-case name."""
        for key, value in self._headers:
            if key == name:
                return value
        return None

    def headers(self, names: Container[bytes]) -> dict[str, str]:
        """Those of these names that the client sent."""
        return {key.decode(): value.decode("latin-1") for key, value in self._headers if key in names}

    async def json(self, limit: int) -> dict[str, Any]:
        """The body as an object. Raises as `read` and `parsed` do."""
        return parsed(await self.read(limit))

    async def read(self, limit: int) -> bytes:
        """The body. Raises TooLarge (limit in bytes) or ClientGone."""
        declared = self.header(b"content-length") or b"0"
        size = int(declared) if declared.isdigit() and len(declared) < 20 else 0
        if size > limit * DRAIN:
            raise TooLarge(f"the body has {size} bytes, the limit is {limit}")
        chunks: list[bytes] = []
        size, more = 0, True
        while more and size <= limit * DRAIN:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
        if size > limit:
            raise TooLarge(f"the body has {'at least ' * more}{size} bytes, the limit is {limit}")
        return b"".join(chunks)

    async def reply(self, status: int, body: bytes, headers: Headers | None = None, kind: bytes = JSON) -> None:
        """A complete answer. `headers` stand for `identity` and what else is to be said."""
        length = (b"content-length", b"%d" % len(body))
        start = [(b"content-type", kind), length, *(self.identity if headers is None else headers)]
        await self.send({"type": "http.response.start", "status": status, "headers": start})
        await self.send({"type": "http.response.body", "body": body})

    async def fail(self, error: ApiError, headers: Headers | None = None, anthropic: bool = False) -> None:
        """An error page; only before the answer has started."""
        headers = self.identity if headers is None else headers
        await self.reply(error.status, error.body(anthropic), [*headers, *error.headers])

    async def abort(self) -> None:
        """Drop the connection with all that the client has not read. ASGI has no word for it: router/server.py
        says how; another server closes a connection whose answer is left incomplete."""
        if ABORT in self._state:
            self._state[ABORT]()
            await asyncio.sleep(0)  # the server hears of it


def parsed(body: bytes) -> dict[str, Any]:
    """A body as an object. Raises BadRequest."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return data


def _new_id() -> bytes:
    """By time, so that an index over them grows at its end; not a secret, so without the system's random bytes,
    which cost more than all else here."""
    return b"%012x%020x" % (int(time.time() * 1000), random.getrandbits(80))

"""The little of HTTP that the router needs on top of ASGI; no framework on the hot path."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import orjson

from router.errors import ApiError, BadRequest, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

DRAIN = 8
"""A body of up to 8 times the limit is read to its end and dropped: many clients, asked to stop in the middle
of sending, report a broken pipe instead of the 413."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


async def read_json(scope: Scope, receive: Receive, limit: int) -> dict[str, Any]:
    """The request's body as an object. Raises TooLarge (limit in bytes), BadRequest or ClientGone."""
    body = await _read(scope, receive, limit)
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return data


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    declared = header(scope, b"content-length") or b"0"
    size = int(declared) if declared.isdigit() else 0
    if size > limit * DRAIN:
        raise TooLarge(f"the body has {size} bytes, the limit is {limit}")
    chunks: list[bytes] = []
    size, more = 0, True
    while more and size <= limit * DRAIN:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
    if size > limit:
        raise TooLarge(f"the body has {'at least ' * more}{size} bytes, the limit is {limit}")
    return b"".join(chunks)


def header(scope: Scope, name: bytes) -> bytes | None:
    """A request header by its lower-case name."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def send_body(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """A complete JSON answer."""
    length = (b"content-length", str(len(body)).encode())
    start = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: ApiError, headers: Headers = ()) -> None:
    """An error page; only before the answer has started."""
    await send_body(send, error.status, error.body(), [*headers, *error.headers])


@contextlib.asynccontextmanager
async def cancelled_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client disconnects, which closes the upstream request; raises ClientGone."""
    task = asyncio.current_task()
    gone = done = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        # A server reports the end of a complete answer as a disconnect too.
        if task and not done:
            gone = True
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            raise ClientGone from None
        raise
    finally:
        done = True
        watcher.cancel()

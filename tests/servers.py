"""Real servers on real ports for the tests: any ASGI app in a thread, and an engine that fails on command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn

from router.asgi import Receive, Scope, Send


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(app: Any, port: int | None = None) -> Iterator[str]:
    """Run an ASGI app in a thread; yields its URL."""
    port = port or free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass
class FakeEngine:
    """Speaks the part of vLLM's HTTP that the router uses, and misbehaves when the request's `test` field says so.

    `test`: "break" drops the connection in the middle, "stall" streams until the client goes,
    "slow" waits 0.3 s, "teapot" answers 418.
    """

    models: list[str]
    healthy: bool = True
    seen: list[dict[str, Any]] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["path"] == "/health":
            await _json(send, 200 if self.healthy else 500, {})
        elif scope["path"] == "/v1/models":
            await _json(
                send,
                200,
                {"object": "list", "data": [{"id": name} for name in self.models] if self.models else None},
            )
        else:
            await self._complete(scope, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = orjson.loads(body)
        self.seen.append(request)
        self.seen_headers.append({key.decode(): value.decode() for key, value in scope["headers"]})
        test = request.get("test")
        if test == "teapot":
            await _json(send, 418, {"error": {"message": "no", "type": "t", "param": None, "code": 418}})
        elif request.get("stream"):
            await self._stream(request, receive, send)
        else:
            if test == "slow":
                await asyncio.sleep(0.3)
            if test == "break":
                await _start(send, 200, [(b"content-type", b"application/json"), (b"content-length", b"999")])
                await send({"type": "http.response.body", "body": b'{"half": ', "more_body": True})
                raise ConnectionAbortedError
            await _json(send, 200, _completion(request["model"], "hello"))

    async def _stream(self, request: dict[str, Any], receive: Receive, send: Send) -> None:
        await _start(send, 200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        gone = asyncio.ensure_future(receive())
        for number in range(10_000 if request.get("test") == "stall" else 5):
            if gone.done():
                self.cancelled.set()
                return
            await send({"type": "http.response.body", "body": _event(request["model"], number), "more_body": True})
            if request.get("test") == "break" and number == 2:
                await send({"type": "http.response.body", "body": b'data: {"half', "more_body": True})
                raise ConnectionAbortedError
            await asyncio.sleep(0.01)
        gone.cancel()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _completion(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "text": text, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}


def _event(model: str, number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


async def _json(send: Send, status: int, data: object) -> None:
    body = orjson.dumps(data)
    await _start(
        send, status, [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    )
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

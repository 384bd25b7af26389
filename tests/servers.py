"""Real servers on real ports for the tests: any ASGI app in a thread, and an engine that fails on command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn

from router.asgi import Receive, Scope, Send
from tests import shapes

PORTS = range(20_000, 32_000)
"""Below those that Linux gives to connections: until a free one is used, nobody else is given it by chance."""
_turns = itertools.count(os.getpid() * 1009)

REQUESTS = "/lora_select/requests/"


def free_port() -> int:
    """A port that nobody listens on, each time another one."""
    while True:
        port = PORTS[next(_turns) % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def serving(app: Any, port: int | None = None, socket_file: str | None = None) -> Iterator[str]:
    """Run an ASGI app in a thread, on a port or on a unix socket; yields its URL."""
    port = port or free_port()
    config = uvicorn.Config(
        app, port=port, uds=socket_file, log_level="critical", timeout_graceful_shutdown=1, ws="none"
    )
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

    `test`: "break" drops the connection in the middle, "stall" streams until the client goes, "slow" waits 0.3 s,
    "teapot" answers 418, "status-429" that status (and so on), "tools" calls every tool of the request with the
    request's `arguments`, and speaks once it has a result, "raw" streams the strings of `raw`, `times` over, and
    then waits until the client goes where `stall` is set. For every model but the base: "fail" answers 500, "gone"
    404, "drop" closes the connection without a word, "event" begins a stream with an error event.
    `echo`: what the model says, instead of "hello" or of the words of a stream, of which there are `words`.
    `also`: fields that every request has, whoever asks.
    `looks` counts how often it was asked for its models. `told`: status and body of what it says, to GET
    /lora_select/requests/ID, of the answer with that id; `asked` are those ids, each with its query.
    """

    models: list[str]
    healthy: bool = True
    seen: list[dict[str, Any]] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    seen_paths: list[str] = field(default_factory=list)
    looks: int = 0
    told: dict[str, tuple[int, Any]] = field(default_factory=dict)
    told_after_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    also: dict[str, Any] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["path"] == "/health":
            await _json(send, 200 if self.healthy else 500, {})
        elif scope["path"] == "/v1/models":
            self.looks += 1
            await _json(
                send,
                200,
                {"object": "list", "data": [{"id": name} for name in self.models] if self.models else None},
            )
        elif scope["path"].startswith(REQUESTS):
            query = scope["query_string"].decode()
            self.asked.append(scope["path"].removeprefix(REQUESTS) + (f"?{query}" if query else ""))
            await asyncio.sleep(self.told_after_s)
            await _json(send, *self.told.get(self.asked[-1], (404, {"detail": "Not Found"})))
        else:
            await self._complete(scope, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request, path = orjson.loads(body) | self.also, scope["path"]
        self.seen.append(request)
        self.seen_paths.append(path)
        self.seen_headers.append({key.decode(): value.decode("latin-1") for key, value in scope["headers"]})
        test = request.get("test")
        if await self._fails(test, path, request.get("model"), send):
            return
        if request.get("stream"):
            await self._stream(path, request, receive, send)
        else:
            if test == "slow":
                await asyncio.sleep(0.3)
            if test == "break":
                await _start(send, 200, [(b"content-type", b"application/json"), (b"content-length", b"999")])
                await send({"type": "http.response.body", "body": b'{"half": ', "more_body": True})
                raise ConnectionAbortedError
            await _json(
                send, 200, shapes.whole(path, request["model"], request.get("echo", "hello"), _calls(request))
            )

    async def _fails(self, test: str | None, path: str, model: str | None, send: Send) -> bool:
        statuses = {"teapot": 418} if model == self.models[0] else {"teapot": 418, "fail": 500, "gone": 404}
        if test in statuses or str(test).startswith("status-"):
            status = statuses.get(str(test)) or int(str(test).removeprefix("status-"))
            await _json(send, status, shapes.error(path, status, "broken"))
            return True
        if model == self.models[0] or test not in ("drop", "event"):
            return False
        if test == "drop":
            send.__self__.transport.abort()  # type: ignore[attr-defined]  # ASGI has no word for it, uvicorn does
            return True
        await _start(send, 200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        error = b'data: {"error": {"message": "lora", "code": 500}}\n\ndata: [DONE]\n\n'
        await send({"type": "http.response.body", "body": error})
        return True

    async def _stream(self, path: str, request: dict[str, Any], receive: Receive, send: Send) -> None:
        await _start(send, 200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        gone = asyncio.ensure_future(receive())
        test, echo = request.get("test"), request.get("echo")
        if test == "raw":
            for piece in request["raw"] * request.get("times", 1):
                await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
            if request.get("stall"):
                await gone
                self.cancelled.set()
                return
            await send({"type": "http.response.body", "body": b""})
            return
        numbers = range(10_000 if test == "stall" else request.get("words", 5))
        words = (f"{echo} " if echo else f"word{number} " for number in numbers)
        options = request.get("stream_options")
        usage = isinstance(options, dict) and bool(options.get("include_usage"))
        for number, event in enumerate(shapes.events(path, request["model"], words, _calls(request), usage)):
            if gone.done():
                self.cancelled.set()
                return
            await send({"type": "http.response.body", "body": event, "more_body": True})
            if test == "break" and number == 2:
                await send({"type": "http.response.body", "body": b'data: {"half', "more_body": True})
                raise ConnectionAbortedError
            await asyncio.sleep(0.01)
        gone.cancel()
        await send({"type": "http.response.body", "body": b""})


def _calls(request: dict[str, Any]) -> shapes.Calls:
    """A call of every tool, unless the last message is a tool's result."""
    if request.get("test") != "tools":
        return []
    last = (request.get("messages") or request["input"])[-1]
    parts = last["content"] if isinstance(last, dict) and isinstance(last.get("content"), list) else [last]
    if any("tool_call_id" in part or "tool_use_id" in part or "output" in part for part in parts):
        return []
    names = [tool.get("function", tool)["name"] for tool in request["tools"]]
    return [(name, request["arguments"]) for name in names]


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

"""The HTTP server: uvicorn, with bounds on what a client may send before it has asked, and a drain at the end."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from adapters import Stack
from router.app import App
from router.asgi import ABORT
from router.errors import ApiError, BadRequest, TooSlow
from router.stop import Stop

GRACE_S = 1
"""For last words (router/call.py), and for connections that are still closing."""

CONTINUE = b"HTTP/1.1 100 "
OFFER = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class HeadTooLarge(ApiError):
    """The request's head is over `router.max_header_kb`."""

    status, kind, code = 431, "invalid_request_error", "header_too_large"


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which takes heads of any size for any time, with both bounded.

    A client whose request has not arrived after `seconds` is cut off, with a 408 where its head is there; what is
    no HTTP, or too large a head, is answered in OpenAI's shape. Neither touches an answer that is under way to the
    same client.
    """

    def __init__(self, *positional: Any, head_bytes: int, seconds: float, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._head_bytes, self._seconds = head_bytes, seconds
        self._received = self._read = self._latest = 0  # _read: since the read that ended the last head
        self._in_head = True
        self._too_slow: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle = None  # type: ignore[assignment]  # as uvicorn's own `cycle`
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        self.app_state = self.app_state | {ABORT: transport.abort}
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and tell the request that is being answered: uvicorn tells the last one that came."""
        self._stop_clock()
        if self._running and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the end of a head."""
        self._latest = len(data)
        self._read += self._latest
        if self._in_head:
            self._received += self._latest
            data = _without_offer(data)
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            if self._received > self._head_bytes:
                self._refuse(self._too_large())
            elif self._received:
                self._start_clock()
        elif not self._in_head:
            self._start_clock()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """It has ended: what follows is the application's to bound."""
        # The first, which costs nothing, is enough for nearly every client.
        if self._read > self._head_bytes and self._head_size() > self._head_bytes:
            self._refuse(error := self._too_large())
            raise error  # the parser stops, and says once more that it could not read this
        self._read = self._latest  # which may hold another head
        self._in_head, self._received = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another head, if anything."""
        super().on_message_complete()
        self._in_head = True
        self._stop_clock()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn's answer to what it cannot parse."""
        self._refuse(BadRequest(msg, code="invalid_http"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if cycle.scope["method"] != "HEAD":
            cycle.transport = _Corked(cycle.transport)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    @property
    def _answering(self) -> bool:
        """A request that has come whole is being answered."""
        return bool(self._running) and not self._running.response_complete and not self._running.more_body

    def _refuse(self, error: ApiError) -> None:
        """Answer what can't be read and end the connection. What came whole before it has its answer first, and a
        connection that ends behind that says the rest."""
        if self._refused:
            return
        self._refused = True
        if self._answering:
            if self.cycle.more_body:
                self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else self._running
            last.keep_alive = False
        elif self.cycle and self.cycle.more_body and self.cycle.response_started:
            self.transport.close()  # it was answered before its body had come
        else:
            self._answer(error)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> HeadTooLarge:
        limit = self._head_bytes // 1024
        return HeadTooLarge(f"the request's head is over {limit} KiB (router.max_header_kb)")

    def _answer(self, error: ApiError) -> None:
        body = error.body()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[error.status] + head + body)
        self.transport.close()

    def _start_clock(self) -> None:
        """Needed only where a request comes in pieces: most are complete with their first packet."""
        if self._too_slow is None:
            self._too_slow = self.loop.call_later(self._seconds, self._out_of_time)

    def _out_of_time(self) -> None:
        self._too_slow = None
        if self._answering:
            self._start_clock()  # the answer comes first; what follows it may have begun
        elif self._in_head:
            self.transport.close()
        else:
            limit = f"{self._seconds:g} s (router.receive_timeout_s)"
            self._refuse(TooSlow(f"the request did not arrive within {limit}"))

    def _stop_clock(self) -> None:
        if self._too_slow:
            self._too_slow.cancel()
            self._too_slow = None


def _without_offer(data: bytes) -> bytes:
    """Without the offer of another protocol in the head that begins here. We need not take it, and httptools would
    take the body for that protocol's: Java's client offers h2c with the first request of every connection."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if b"pgrade" not in head:
        return data
    return OFFER.sub(b"\r\nx-overlooked:", head) + end + rest


class _Corked:
    """A transport that holds an answer's head until its body: one packet wakes the client, instead of two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = b""

    def write(self, data: bytes) -> None:
        if self._head is None or data.startswith(CONTINUE):
            self._transport.write(data)
        elif self._head:
            self._transport.write(self._head + data)
            self._head = None
        else:
            self._head = data

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Server(uvicorn.Server):
    """Ends in two steps: first `/health` and new requests get 503 while open ones end, then what is still open is
    cut off and the sockets close. An `ignored` signal is another process's to act on."""

    def __init__(self, config: uvicorn.Config, app: App, drain_s: float, ignored: int | None = None) -> None:
        super().__init__(config)
        self._occupancy, self._drain_s, self._ignored = app.occupancy, drain_s, ignored
        self._stop = Stop()
        self._deadline = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first wish drains, the second ends at once. Only records; `on_tick` acts. Uvicorn, which would raise
        the signal again in the end, is not told."""
        if sig == self._ignored:
            return
        self._stop(sig, frame)
        if self._stop.wishes > 1:
            self.force_exit = self.should_exit = True
        elif not self._occupancy.draining:
            self._occupancy.draining = True
            self._deadline = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._occupancy.draining and not self.should_exit:
            late = time.monotonic() > self._deadline
            self.should_exit = late or self._occupancy.in_flight == 0
            for task in self.server_state.tasks if late else ():
                task.cancel()  # router/complete.py tells the client why
        return await super().on_tick(counter)


def run(app: App, stack: Stack, log_level: str, shared: bool = False) -> None:
    """Serve until a signal, and drain. `shared`: other workers listen on the same port."""
    router = stack.router
    protocol = partial(BoundedHttp, head_bytes=int(router.max_header_kb * 1024), seconds=router.receive_timeout_s)
    config = uvicorn.Config(
        app, host=router.host, port=router.port, loop="uvloop", http=protocol,  # type: ignore[arg-type]
        ws="none", access_log=False, log_level=log_level, server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    sockets = [_shared_socket(router.host, router.port)] if shared else None
    Server(config, app, router.drain_s, ignored=signal.SIGINT if shared else None).run(sockets)


def _shared_socket(host: str, port: int) -> socket.socket:
    """One of several on a port: the kernel spreads connections over them."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    shared = socket.socket(family, kind, protocol)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(address)
    shared.set_inheritable(True)
    return shared

"""One HTTP/1.1 connection to the engine: requests out, and the bytes of the answers in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import cast

from router.answer import Exchange, Refused, UpstreamError

PIECE = 2**16
"""A body up to this size goes out in one write with its head, a longer one as fast as the engine takes it."""

START_LINE = re.compile(r"[A-Z]+ /[!-~]* HTTP/1\.1")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
RESERVED = frozenset(
    ("connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Request headers that are written here, or whose meaning would not be kept here."""


def head_of(host: str, method: str, path: str, headers: Mapping[str, str], length: int | None) -> bytes:
    """A request's head. Raises ValueError for what would not arrive as it was meant, such as a line break."""
    lines = [_start_line(method, path), f"host: {host}"]
    lines += [f"{_field(name)}: {value}" for name, value in headers.items()]
    if "accept-encoding" not in headers:
        lines.append("accept-encoding: identity")  # the bytes go on to clients that asked for no encoding
    if length is not None:
        lines.append(f"content-length: {length}")
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) - 1 or "\0" in head:
        raise ValueError(f"a line break or a zero in a header: {headers}")
    return f"{head}\r\n\r\n".encode("latin-1")


@lru_cache(256)
def _start_line(method: str, path: str) -> str:
    line = f"{method} {path} HTTP/1.1"
    if not START_LINE.fullmatch(line):
        raise ValueError(f"{line!r} is not the first line of a request")
    return line


@lru_cache(256)
def _field(name: str) -> str:
    if not TOKEN.fullmatch(name) or name in RESERVED:
        raise ValueError(f"{name!r} cannot be a header here: lower-case names can, without {sorted(RESERVED)}")
    return name


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. `free` is called when the next may follow, `lost` when none can any more."""

    def __init__(self, free: Callable[[Connection], None], lost: Callable[[Connection], None]) -> None:
        self.closed = True
        self._free = free
        self._lost = lost
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._unsent = memoryview(b"")
        self._choked = False

    def send(self, head: bytes, body: bytes) -> Exchange:
        """Write a request. Raises Refused if the connection is closed."""
        if self.closed:
            raise Refused("the engine closed the connection before the request was written")
        self._exchange = exchange = Exchange(self)
        if len(body) <= PIECE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._pump()
        return exchange

    def abort(self) -> None:
        """Close at once: what has not been sent never will be."""
        self._gone(UpstreamError("closed by the router"))

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.closed = False

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked; it must not become the next request's answer
            return
        exchange.feed(data)
        if exchange.over:
            self._finish(exchange)

    def eof_received(self) -> None:
        self._gone(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(exc or UpstreamError("closed without a word"))

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._pump()

    def _pump(self) -> None:
        while self._unsent and not self._choked and not self.closed:
            piece, self._unsent = self._unsent[:PIECE], self._unsent[PIECE:]
            self._transport.write(piece)

    def _finish(self, exchange: Exchange) -> None:
        exchange.detach()
        self._exchange = None
        # An answer can come before the request is out: what follows would be read as the rest of its body.
        if exchange.reusable and not self._unsent:
            self._transport.resume_reading()
            self._free(self)
        else:
            self.abort()

    def _gone(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        self._transport.abort()
        self._lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange:
            exchange.end(error)
            exchange.detach()

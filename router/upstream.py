"""Forwarding to the engine: the interface, and the pool of connections behind it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Protocol
from urllib.parse import urlsplit

from router.answer import NOT_RELAYED, Exchange, Refused, UpstreamError
from router.asgi import Headers
from router.wire import Connection, head_of

__all__ = [
    "NOT_RELAYED",
    "Answer",
    "Headers",
    "HttpUpstream",
    "Refused",
    "Upstream",
    "UpstreamError",
]

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 4.0
"""Below vLLM's 5 s: a request on a connection that closes as it arrives is lost, and may not be sent twice."""


class Answer(Protocol):
    """The engine's answer: head at once, body as it comes, once."""

    status: int
    headers: Headers
    is_stream: bool

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamError, also for a body that was cut short."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, bytes untouched. Raises UpstreamError, also for a body that was cut short."""

    def leave(self) -> None:
        """Done with it: a body that has not come to its end is cancelled. May be called more than once."""


class Upstream(Protocol):
    """A connection pool to one engine."""

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One GET, or one POST with its body, and the head of the answer, which is to be left.

        Raises Refused if nothing was sent, UpstreamError if the engine may have seen the request, ValueError for
        a path or header that HTTP cannot carry. There is no time limit but the connection's.
        """

    async def close(self) -> None:
        """Close every connection."""


class HttpUpstream:
    """An Upstream over HTTP/1.1 for an `http://` or `https://` URL.

    A request is sent once, with one exception: a GET, on a connection kept from before that closed without a byte
    of answer, is sent again on a new connection. Raises ValueError for other URLs. `socket_file`: whatever the
    host, who listens on that unix socket is meant.
    """

    def __init__(self, url: str, socket_file: str | None = None) -> None:
        self._socket_file = socket_file
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"{url!r}: only a host, a port and a path can be given")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._authority = parts.netloc
        self._open: set[Connection] = set()
        self._idle: dict[Connection, float] = {}  # since when, the longest first
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()
        if self._sweeper:
            self._sweeper.cancel()
        await asyncio.sleep(0)  # the event loop closes the sockets

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Exchange:
        length = None if method == "GET" else len(body or b"")
        head = head_of(self._authority, method, self._prefix + path, headers or {}, length)
        kept = self._kept()
        if kept:
            exchange = kept.send(head, body or b"")
            try:
                await exchange.head()
            except UpstreamError:
                if method != "GET" or not exchange.untouched:
                    raise
            else:
                return exchange
        exchange = (await self._connect()).send(head, body or b"")
        await exchange.head()
        return exchange

    def _kept(self) -> Connection | None:
        """The connection that has been idle for the shortest time."""
        while self._idle:
            connection, since = self._idle.popitem()
            if asyncio.get_running_loop().time() - since < KEEPALIVE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        connection = Connection(self._free, self._lost)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self._socket_file:
                    await loop.create_unix_connection(lambda: connection, self._socket_file)
                else:
                    await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._context)
        except (OSError, UnicodeError) as error:  # time-outs, names and TLS included
            reason = str(error) or type(error).__name__
            place = self._socket_file or f"{self._host}:{self._port}"
            raise Refused(f"no connection to {place}: {reason}") from error
        if self._closed:
            connection.abort()
            raise UpstreamError("this client is closed")
        if not connection.closed:
            self._open.add(connection)
        return connection

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context() if self._tls else None

    def _free(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.time()
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEPALIVE_S, self._sweep)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _sweep(self) -> None:
        """Close what a burst has left behind; without this the engine's side would have to."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if since + KEEPALIVE_S > loop.time():
                self._sweeper = loop.call_at(since + KEEPALIVE_S, self._sweep)
                return
            connection.abort()

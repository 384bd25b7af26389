"""One answer of the engine as it arrives: what the parser finds in the bytes, and what the caller takes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from router.asgi import Headers

NOT_RELAYED = frozenset(
    (
        b"date",
        b"server",
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers of one connection (RFC 9110, 7.6.1), and those that our own server writes."""

HIGH_WATER = 2**18
"""Bytes that wait for a slow reader before the engine is no longer read from."""

HEAD_LIMIT = 2**16
"""Bytes of a head; and bytes in a row that bring no body: interim answers, extensions of chunks, trailers."""

HEADERS_LIMIT = 128


class UpstreamError(Exception):
    """The engine could not be reached, or broke off while it answered."""


class Refused(UpstreamError):
    """No connection could be made: nothing was sent, so the request may be tried again."""


class _Enough(Exception):
    """Raised inside the parser to stop it where the answer ends and the bytes do not."""


class Source(Protocol):
    """The connection that an answer comes from."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


class Exchange:
    """An Answer (router/upstream.py) in the making. It is fed by its connection until it is over, and can be read
    from afterwards, when the connection has gone on to the next one."""

    # Defaults in the class: set on every instance they would cost 0.8 µs per request.
    status = 0  # until the head has come
    is_stream = over = reusable = _framed = _whole = False
    failure = ""
    _size = _barren = 0
    _hops = b""
    _waiter: asyncio.Future[None] | None = None

    def __init__(self, source: Source) -> None:
        self.headers: Headers = []
        self._source: Source | None = source
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # saves a frame of Python's per chunk
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    # The caller's side.

    async def head(self) -> None:
        """Wait for status and headers. Raises UpstreamError; a caller who is cancelled here is gone."""
        try:
            while not self.status:
                await self._news()
        except BaseException:
            self.leave()
            raise

    async def read(self) -> bytes:
        self._whole = True
        self._resume()
        while not self.over:
            await self._news()
        if self.failure:
            raise UpstreamError(self.failure)
        return self._take()

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self.over and not self.failure:
                raise StopAsyncIteration
            await self._news()
        return self._take()

    def leave(self) -> None:
        """The caller is done: an answer that is not over is cut off, which is how vLLM learns to abort."""
        if not self.over:
            self._parts.clear()
            self._fail("the answer was left before its end")
        if self._source:
            self._source.abort()

    def _news(self) -> asyncio.Future[None]:
        if self.failure:
            raise UpstreamError(self.failure)
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._size > HIGH_WATER:
            self._resume()
        self._size = 0
        return data

    def _resume(self) -> None:
        if self._source:
            self._source.resume_reading()

    # The connection's side.

    @property
    def untouched(self) -> bool:
        """Whether not a single byte has come."""
        return not self.status and not self._barren

    def feed(self, data: bytes) -> None:
        """Bytes from the connection; `over` says afterwards whether they were the last ones."""
        assert self._parser
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.reusable = False
            if not self.over:
                own = isinstance(error.__context__, UpstreamError)
                self._fail(str(error.__context__) if own else f"the engine's answer is no valid HTTP: {error}")
        if self._parts:
            self._barren = 0
            self._size += len(data)
            if self._size > HIGH_WATER and not self._whole and self._source:
                self._source.pause_reading()
        elif self._barren > HEAD_LIMIT and not self.over:
            self._fail(f"the engine sent more than {HEAD_LIMIT} bytes that are no body")
        if self.status or self.over:
            self._wake()

    def end(self, error: Exception | None) -> None:
        """The connection is gone; without an error that is the proper end of a body of undeclared length."""
        if self.over:
            return
        if self.status and not self._framed and error is None:
            self.over = True
            self._wake()
        else:
            when = "in the middle of its answer" if self.status else "before it answered"
            self._fail(f"the connection ended {when}" + (f": {error}" if error else ""))

    def detach(self) -> None:
        """The connection is no longer this answer's."""
        self._source = self._parser = None

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self.over = True
        self.reusable = False
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self.over:
            raise _Enough

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer
        key, value = name.lower(), value.rstrip()
        if key not in NOT_RELAYED:
            self.headers.append((key, value))
        if key == b"content-type":
            self.is_stream = value.partition(b";")[0].rstrip().lower() == b"text/event-stream"
        elif key == b"content-length":
            self._framed = True
        elif key == b"transfer-encoding":
            self._framed = True
            if value.lower() != b"chunked":
                raise UpstreamError(f"the engine's answer has a transfer coding of its own: {value!r}")
        elif key == b"connection":
            self._hops += b"," + value.lower()

    def on_headers_complete(self) -> None:
        assert self._parser
        status = self._parser.get_status_code()
        if status == 101:
            raise UpstreamError("the engine wants to speak another protocol")
        if len(self.headers) > HEADERS_LIMIT or self._barren > HEAD_LIMIT < _length(self.headers):
            raise UpstreamError("the head of the engine's answer is too large")
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self.headers.clear()
            self.is_stream = self._framed = False
            return
        if self._hops:
            hops = {name.strip() for name in self._hops.split(b",")}
            self.headers = [pair for pair in self.headers if pair[0] not in hops]
        self.status = status
        self.reusable = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        if self.status:
            self.over = True


def _length(headers: Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)

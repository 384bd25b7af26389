"""Forwarding to the engine, behind an interface that a leaner client than aiohttp can take over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp

Headers = list[tuple[bytes, bytes]]

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

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 4.0
"""Below vLLM's 5 s: a request on a connection that closes as it arrives is lost, and may not be sent twice."""


class UpstreamError(Exception):
    """The engine could not be reached, or broke off while it answered."""


class Answer(Protocol):
    """The engine's answer: head at once, body as it comes."""

    status: int
    headers: Headers
    is_stream: bool

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamError."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, bytes untouched. Raises UpstreamError."""


class Upstream(Protocol):
    """A connection pool to one engine."""

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        """One request; leaving the context before the body's end cancels it. Raises UpstreamError."""

    async def close(self) -> None:
        """Close idle connections."""


class _AiohttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Headers = [
            (key.lower(), value) for key, value in response.raw_headers if key.lower() not in NOT_RELAYED
        ]
        self.is_stream = response.content_type == "text/event-stream"
        self._response = response

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(str(error) or type(error).__name__) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(str(error) or type(error).__name__) from error


class AiohttpUpstream:
    """An Upstream on aiohttp; made inside the event loop, at the first request."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> AsyncIterator[Answer]:
        try:
            response = await self._opened().request(method, self._url + path, data=body, headers=headers)
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(str(error) or type(error).__name__) from error
        try:
            yield _AiohttpAnswer(response)
        finally:
            # A body that was read to its end has given its connection back already; close() then does
            # nothing. In mid-stream it drops the connection, which is how vLLM learns to abort.
            response.close()

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                auto_decompress=False,
                headers={"accept-encoding": "identity"},  # the bytes go on to clients that asked for no encoding
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=2**18,
            )
        return self._session

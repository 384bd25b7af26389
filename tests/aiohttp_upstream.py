"""The client as it was on aiohttp: the reference that tests/test_upstream.py holds our own one against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp

from router import upstream
from router.upstream import NOT_RELAYED, Answer, Headers, HttpUpstream, Refused, UpstreamError


class Requests(Protocol):
    """What both clients can be asked in the same way."""

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        """One request; leaving the context before the body's end cancels it."""

    async def close(self) -> None:
        """Close every connection."""


class OwnUpstream(HttpUpstream):
    """Ours, with each answer as a context."""

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> AsyncIterator[Answer]:
        answer = await self.ask(method, path, headers, body)
        try:
            yield answer
        finally:
            answer.leave()


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

    def leave(self) -> None:
        # A body that was read to its end has given its connection back already; close() then does
        # nothing. In mid-stream it drops the connection, which is how vLLM learns to abort.
        self._response.close()


class AiohttpUpstream:
    """On aiohttp; made inside the event loop, at the first request."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> AsyncIterator[Answer]:
        try:
            response = await self._opened().request(method, self._url + path, data=body, headers=headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Refused(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(str(error) or type(error).__name__) from error
        answer = _AiohttpAnswer(response)
        try:
            yield answer
        finally:
            answer.leave()

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=upstream.KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=upstream.CONNECT_TIMEOUT_S),
                auto_decompress=False,
                headers={"accept-encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=2**18,
            )
        return self._session

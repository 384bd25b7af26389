"""The manager of adapters (serve/life), asked over its socket: what may be routed to, and admins' wishes."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import quote

import orjson

from adapters import RESTRICTED
from router.errors import ApiError, EngineUnavailable
from router.upstream import HttpUpstream, UpstreamError

NEWS_TIMEOUT_S = 15.0
"""The manager answers after 10 s where nothing changes."""


class ManagerError(Exception):
    """It does not answer, or nonsense."""


class Refused(ApiError):
    """The manager's own refusal, passed on."""

    kind, code = "invalid_request_error", "adapter_refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Manager:
    """One connection pool to its socket."""

    def __init__(self, socket_file: str) -> None:
        self._upstream = HttpUpstream("http://manager", socket_file)

    async def changes(self, after: int) -> dict[str, Any]:
        """What may be routed to, as soon as it differs from generation `after`. Raises ManagerError."""
        try:
            async with asyncio.timeout(NEWS_TIMEOUT_S):
                status, answer = await self._call("GET", f"/changes?after={after}&router={os.getpid()}")
        except (UpstreamError, TimeoutError, orjson.JSONDecodeError) as error:
            raise ManagerError(str(error) or "it does not answer") from None
        if status != 200:
            raise ManagerError(f"it answers with status {status}")
        return answer

    async def adapters(self) -> dict[str, Any]:
        """All of them, in every state, with where their weights are. Raises ApiError."""
        return await self._wish("GET", "/adapters")

    async def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """Add or update one, by the keys of adapters.yaml. Raises ApiError."""
        return await self._wish("POST", "/adapters", orjson.dumps(body))

    async def test(self, name: str) -> dict[str, Any]:
        """Its self-test once more; the adapter comes back with what was found. Raises ApiError."""
        return await self._wish("POST", f"/adapters/{quote(name, safe='')}/test")

    async def remove(self, name: str) -> dict[str, Any]:
        """Returns when it is unloaded. Raises ApiError."""
        return await self._wish("DELETE", f"/adapters/{quote(name, safe='')}")

    async def close(self) -> None:
        """Close its connections."""
        await self._upstream.close()

    async def _wish(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        try:
            status, answer = await self._call(method, path, body)
        except (UpstreamError, orjson.JSONDecodeError) as error:
            raise EngineUnavailable(f"the manager of adapters does not answer: {error}") from None
        if status != 200:
            raise Refused(status, str(answer.get("error", answer)))
        return answer

    async def _call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        answer = await self._upstream.ask(method, path, {RESTRICTED: "1"}, body)
        try:
            return answer.status, orjson.loads(await answer.read())
        finally:
            answer.leave()

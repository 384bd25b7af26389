"""What the engine serves right now: the only source of candidates and of readiness."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import orjson

from adapters import Stack
from router.errors import EngineUnavailable
from router.upstream import Upstream, UpstreamError

log = logging.getLogger(__name__)

POLL_S = 1.0
POLL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Serving:
    """The configured adapters that are up; `problem` says why the engine cannot be used, or is empty."""

    adapters: tuple[str, ...] = ()
    problem: str = "the engine has not answered yet"


class Engine:
    """Polls the engine's `/health` and `/v1/models`."""

    def __init__(self, stack: Stack, upstream: Upstream) -> None:
        self._stack = stack
        self._upstream = upstream
        self.serving = Serving()

    async def watch(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Ask once; a failure is a state, not an exception."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                health = await self._get("/health")
                listed = await self._get("/v1/models")
        except (UpstreamError, TimeoutError):
            self.serving = Serving(problem=f"the engine at {self._stack.engine_url} does not answer")
            return
        if health[0] != 200 or listed[0] != 200:
            self.serving = Serving(problem=f"the engine is not well: status {health[0]} and {listed[0]}")
            return
        try:
            names = {model["id"] for model in orjson.loads(listed[1])["data"]}
        except (ValueError, KeyError, TypeError):
            self.serving = Serving(problem="what answers at the engine's address is no OpenAI server")
            return
        if self._stack.base.name not in names:
            self.serving = Serving(problem=f"the engine serves {sorted(names)}, not {self._stack.base.name}")
            return
        self.serving = Serving(tuple(name for name in self._stack.adapters if name in names), problem="")

    def lost(self, error: UpstreamError) -> EngineUnavailable:
        """What a client is told whose request broke off. One broken connection is not a dead engine: the next
        look, within a second, decides that for everybody else."""
        log.warning("a request to the engine failed: %s", error)
        return EngineUnavailable("the engine does not answer, or broke off; try again shortly")

    def unavailable(self) -> EngineUnavailable:
        """The error for a client who asks while the engine cannot be used."""
        return EngineUnavailable(f"{self.serving.problem}; try again shortly")

    @property
    def missing(self) -> tuple[str, ...]:
        """Configured adapters that the engine does not list."""
        return tuple(name for name in self._stack.adapters if name not in self.serving.adapters)

    async def _get(self, path: str) -> tuple[int, bytes]:
        async with self._upstream.request("GET", path) as answer:
            return answer.status, await answer.read()

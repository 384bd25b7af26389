"""What the engine serves right now: the only source of candidates and of readiness."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import orjson

from adapters import Stack
from router.errors import EngineUnavailable
from router.roster import Roster
from router.upstream import Upstream, UpstreamError

log = logging.getLogger(__name__)

POLL_S = 1.0
POLL_DOWN_S = 0.2
"""While requests may be waiting for the engine's return."""

POLL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Serving:
    """The names that the engine knows; `problem` says why it cannot be used, or is empty."""

    names: frozenset[str] = frozenset()
    problem: str = "the engine has not answered yet"


class Engine:
    """Polls the engine's `/health` and `/v1/models`. It cannot be used before its adapters were tried, either."""

    def __init__(self, stack: Stack, upstream: Upstream, roster: Roster) -> None:
        self._stack, self._roster = stack, roster
        self._upstream = upstream
        self._up = asyncio.Event()
        self._look = asyncio.Event()
        self._asking = asyncio.Lock()
        self.serving = Serving()

    async def watch(self) -> None:
        """Refresh until cancelled."""
        while True:
            self._look.clear()
            try:
                await self.refresh()
            except Exception as error:  # whatever it is, somebody must go on looking
                problem = f"the router cannot tell what the engine serves: {type(error).__name__}"
                if self.serving.problem != problem:
                    log.exception(problem)
                self._set(Serving(problem=problem))
            try:
                async with asyncio.timeout(POLL_DOWN_S if self.serving.problem else POLL_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> None:
        """Look now: what is known afterwards is no older than this call."""
        async with self._asking:
            self._set(await self._ask())

    async def up(self, within_s: float) -> None:
        """Wait until the engine can be used. Raises EngineUnavailable when it takes longer."""
        if not self.serving.problem:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            raise EngineUnavailable(f"{self.serving.problem}; try again shortly") from None

    def look(self) -> None:
        """Refresh soon: something that was just seen says that `serving` may be out of date."""
        self._look.set()

    def refused(self, error: UpstreamError) -> None:
        """Nothing listens at the engine's address: nobody else needs to try before it is back."""
        log.warning("the engine refused a connection: %s", error)
        self._set(Serving(problem=f"the engine at {self._stack.engine_url} does not answer"))
        self.look()

    def lost(self, error: UpstreamError) -> EngineUnavailable:
        """What a client is told whose request broke off. One broken connection is not a dead engine: the next
        look, at once, decides that for everybody else."""
        log.warning("a request to the engine failed: %s", error)
        self.look()
        return EngineUnavailable("the engine does not answer, or broke off; try again shortly")

    def _set(self, serving: Serving) -> None:
        self.serving = serving
        if serving.problem:
            self._up.clear()
        else:
            self._up.set()

    async def _ask(self) -> Serving:
        """Ask once; a failure is a state, not an exception."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                health = await self._get("/health")
                listed = await self._get("/v1/models")
        except (UpstreamError, TimeoutError):
            return Serving(problem=f"the engine at {self._stack.engine_url} does not answer")
        if health[0] != 200 or listed[0] != 200:
            return Serving(problem=f"the engine is not well: status {health[0]} and {listed[0]}")
        try:
            names = frozenset(model["id"] for model in orjson.loads(listed[1])["data"])
            known = sorted(names)
        except (ValueError, KeyError, TypeError):
            return Serving(problem="what answers at the engine's address is no OpenAI server")
        if self._stack.base.name not in names:
            return Serving(problem=f"the engine serves {known}, not {self._stack.base.name}")
        return Serving(names, self._roster.problem)

    async def _get(self, path: str) -> tuple[int, bytes]:
        answer = await self._upstream.ask("GET", path)
        try:
            return answer.status, await answer.read()
        finally:
            answer.leave()

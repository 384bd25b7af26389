"""What only an admin may: metrics, the decision log, adapters; and what clients say of decisions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from adapters import Stack
from router.access import Client, Keys
from router.asgi import Request
from router.decisions import DecisionLog
from router.errors import ApiError, BadRequest, EngineTooSlow, NotFound
from router.manager import Manager
from router.metrics import CONTENT_TYPE, Metrics
from router.watch import Watch

RESIDENCY_S = 2.0
"""For the engine to say where its adapters are; metrics do not wait longer, nor ask more often."""

MOST = 1000
RATINGS = ("up", "down")
FIELDS = ("request_id", "adapter", "rating", "comment")
LONGEST = 2000
LONGEST_NUMBER = 9
"""Digits; Python refuses to read thousands of them."""


class Admin:
    """The log's routes answer 404 where the stack keeps none, those of adapters where nobody manages them."""

    def __init__(
        self, stack: Stack, keys: Keys, log: DecisionLog | None, manager: Manager | None, metrics: Metrics
    ) -> None:
        self._keys, self._log, self._manager, self._metrics = keys, log, manager, metrics
        self._looked = -RESIDENCY_S
        self._body_limit, self._within_s = int(stack.router.max_body_mb * 2**20), stack.router.answer_timeout_s

    @property
    def managed(self) -> bool:
        """Adapters come and go."""
        return self._manager is not None

    async def serve(self, request: Request) -> None:
        """Answer one of the routes below /admin, or /metrics, which are open where the stack has no admin key.

        Raises ApiError.
        """
        if self._keys.has_admin or request.path != "/metrics":
            self._keys.admin(request)
        match request.path, request.method:
            case "/metrics", _:
                await self._residency()
                await request.reply(200, self._metrics.page(), kind=CONTENT_TYPE)
            case "/admin/decisions", _:
                await request.reply(200, await self.decisions(request.query))
            case "/admin/adapters", "POST":
                body = await request.json(self._body_limit)
                await self._waited(request, self._manages().add(body))
            case "/admin/adapters", _:
                await self._waited(request, self._manages().adapters())
            case path, "POST":
                name = unquote(path.removeprefix("/admin/adapters/").removesuffix("/test"))
                await self._waited(request, self._manages().test(name))
            case path, _:
                name = unquote(path.removeprefix("/admin/adapters/"))
                await self._waited(request, self._manages().remove(name))

    async def _waited(self, request: Request, wish: Coroutine[Any, Any, dict[str, Any]]) -> None:
        """It takes its time (load, self-test, drain); whoever asked may go, and it is done all the same."""
        try:
            async with Watch(request.receive, self._within_s):
                answer = await wish
        except TimeoutError:
            raise EngineTooSlow(f"it goes on, and takes longer than {self._within_s:g} s") from None
        await request.reply(200, orjson.dumps(answer))

    async def _residency(self) -> None:
        """Where adapters are, asked when somebody looks: the engine moves them by itself."""
        now = time.monotonic()
        if self._manager is None or now - self._looked < RESIDENCY_S:
            return
        self._looked = now
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout(RESIDENCY_S):
                self._metrics.resident((await self._manager.adapters())["adapters"])

    def _manages(self) -> Manager:
        if self._manager is None:
            raise NotFound("nobody manages adapters here: python -m serve does", code="no_manager")
        return self._manager

    async def decisions(self, query_string: str) -> bytes:
        """`GET /admin/decisions?limit=50&request_id=…&feedback=1`: the newest first, as JSON; with the last, those
        alone of which somebody said something."""
        query = parse_qs(query_string)
        limit = query.get("limit", ["50"])[-1]
        if not limit.isdecimal() or len(limit) > LONGEST_NUMBER or not 1 <= int(limit) <= MOST:
            raise BadRequest(f'"limit" must be a number from 1 to {MOST}', param="limit")
        if (judged := query.get("feedback", [""])[-1]) not in ("", "1"):
            raise BadRequest('"feedback" must be 1, or left out', param="feedback")
        rows = self._kept().recent(int(limit), query.get("request_id", [None])[-1], judged=bool(judged))
        return orjson.dumps({"decisions": await asyncio.wrap_future(rows)})

    async def feedback(self, body: dict[str, Any], client: Client, now: float) -> dict[str, Any]:
        """`POST /feedback {"request_id", "adapter"?, "rating"?: "up" | "down", "comment"?}`.

        `adapter` is the model that would have been right. Of its own requests alone a key may speak, but for the
        admin's. Raises BadRequest, or NotFound for an unknown request.
        """
        log = self._kept()
        if unknown := sorted(set(body) - set(FIELDS)):
            raise BadRequest(f'unknown field "{unknown[0]}"; valid here: {", ".join(FIELDS)}', param=unknown[0])
        for field in FIELDS:
            if not isinstance(body.get(field, ""), str | None) or len(body.get(field) or "") > LONGEST:
                raise BadRequest(f'"{field}" must be text of at most {LONGEST} characters', param=field)
        if not body.get("request_id"):
            raise BadRequest('"request_id" is missing: the x-request-id of the answer', param="request_id")
        if body.get("rating") not in (None, *RATINGS):
            raise BadRequest('"rating" must be "up" or "down"', param="rating")
        if not any(body.get(field) for field in FIELDS[1:]):
            raise BadRequest(f"say something: {', '.join(FIELDS[1:])}", param="rating")
        said = (now, body["request_id"], client.name, *(body.get(field) for field in FIELDS[1:]))
        if not await asyncio.wrap_future(log.add_feedback(said, of_any=client.admin)):
            raise NotFound(f'no request "{body["request_id"]}" of this key was decided here', param="request_id")
        return {"stored": True}

    def _kept(self) -> DecisionLog:
        if self._log is None:
            raise NotFound("this router keeps no decision log (router.decision_log)", code="no_decision_log")
        return self._log

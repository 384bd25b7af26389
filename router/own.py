"""Routes that the router answers itself: health, metrics, models, the dry run, the decision log."""

from __future__ import annotations

import time
from typing import Any

import orjson

from adapters import AUTO, Stack
from router.access import Client, Keys, Limits
from router.admin import Admin
from router.asgi import Request
from router.catalog import Catalog
from router.decide import Decider
from router.endpoints import ENDPOINTS
from router.engine import Engine
from router.errors import BadRequest, EngineTooSlow, MethodNotAllowed, NotFound
from router.life import Ledger, Occupancy
from router.metrics import CONTENT_TYPE, Metrics
from router.watch import Watch

POSTS = frozenset(("/route", "/feedback"))
GETS = frozenset(("/health", "/ready", "/metrics", "/v1/models", "/admin/decisions"))
ONE_MODEL = "/v1/models/"
SUBJECTS = ("text", *(field for endpoint in ENDPOINTS.values() for field in endpoint.needs))
"""Fields of which a dry run needs one."""


class Own:
    """Answers from what this process knows."""

    def __init__(
        self,
        stack: Stack,
        keys: Keys,
        limits: Limits,
        engine: Engine,
        catalog: Catalog,
        decider: Decider,
        metrics: Metrics,
        admin: Admin,
        ledger: Ledger,
        occupancy: Occupancy,
    ) -> None:
        self._body_limit = int(stack.router.max_body_mb * 2**20)
        self._within_s = stack.router.answer_timeout_s
        self._limits = limits
        self._keys, self._engine, self._catalog, self._decider = keys, engine, catalog, decider
        self._metrics, self._admin, self._ledger, self._occupancy = metrics, admin, ledger, occupancy

    async def serve(self, request: Request) -> None:
        """Answer it. Raises ApiError."""
        path = request.path
        expected = "POST" if path in POSTS else "GET"
        if path not in POSTS and path not in GETS and not path.startswith(ONE_MODEL):
            raise NotFound(f"there is no {path} here", code="unknown_route")
        if request.method != expected and (request.method, expected) != ("HEAD", "GET"):
            raise MethodNotAllowed(f"{path} takes {expected}, not {request.method}", allow=expected)
        match path:
            case "/health":
                status, word = (503, "draining") if self._occupancy.draining else (200, "ok")
                await request.reply(status, orjson.dumps({"status": word}))
            case "/ready":
                problem = self._problem()
                body = {"status": "unavailable" if problem else "ready", "problem": problem or None}
                await request.reply(503 if problem else 200, orjson.dumps(body))
            case "/metrics":
                if self._keys.has_admin:
                    self._keys.admin(request)
                self._ledger.show()
                await request.reply(200, self._metrics.page(), kind=CONTENT_TYPE)
            case "/admin/decisions":
                self._keys.admin(request)
                self._ledger.show()
                await request.reply(200, await self._admin.decisions(request.query))
            case "/route" | "/feedback":
                with self._occupancy:
                    await request.reply(200, orjson.dumps(await self._admitted(request)))
            case _:
                client = self._keys.client(request)
                await self._engine.up(0)
                name = path.removeprefix(ONE_MODEL)
                models = self._catalog.all(client) if path == "/v1/models" else self._catalog.one(name, client)
                await request.reply(200, orjson.dumps(models))

    async def _admitted(self, request: Request) -> dict[str, Any]:
        client = self._keys.client(request)
        await self._limits.admit(client)
        body = await request.json(self._body_limit)
        try:
            async with Watch(request.receive, self._within_s):
                if request.path == "/route":
                    answer = await self._dry_run(request, body, client)
                else:
                    self._ledger.show()  # what it speaks of may have ended just now
                    answer = await self._admin.feedback(body, client, time.time())
        except TimeoutError:
            raise EngineTooSlow(f"this took longer than {self._within_s:g} s (router.answer_timeout_s)") from None
        return answer

    def _problem(self) -> str:
        if self._occupancy.draining:
            return "this router is shutting down"
        if self._engine.missing and not self._engine.serving.problem:
            return f"the engine does not list {', '.join(self._engine.missing)}"
        return self._engine.serving.problem

    async def _dry_run(self, request: Request, body: dict[str, Any], client: Client) -> dict[str, Any]:
        if not isinstance(body.get("text", ""), str) or not any(field in body for field in SUBJECTS):
            raise BadRequest('give a "text", or the body of a chat or completion request', param="text")
        await self._engine.up(0)
        routed = await self._decider.decide(request, {"model": AUTO} | body, client)
        return {
            "model": routed.decision.model,
            "score": routed.decision.score,
            "reason": routed.decision.reason,
            "scores": routed.scores,
            "classify_ms": round(routed.classify_ms, 2),
            "cached": routed.cached,
        }

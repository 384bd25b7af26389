"""Routes that the router answers itself: health, metrics, models, the dry run, the decision log."""

from __future__ import annotations

import time
from typing import Any

import orjson

from adapters import AUTO, Stack
from router import dry_run
from router.access import Client, Keys, Limits
from router.admin import Admin
from router.asgi import Request
from router.catalog import Catalog
from router.decide import Decider
from router.endpoints import ENDPOINTS
from router.engine import Engine
from router.errors import BadRequest, EngineTooSlow, MethodNotAllowed, NotFound
from router.life import Ledger, Occupancy
from router.watch import Watch

METHODS = {
    "/health": ("GET",),
    "/ready": ("GET",),
    "/metrics": ("GET",),
    "/v1/models": ("GET",),
    "/route": ("POST",),
    "/feedback": ("POST",),
    "/admin/decisions": ("GET",),
    "/admin/adapters": ("GET", "POST"),
}
ONE_MODEL, ONE_ADAPTER, TEST = "/v1/models/", "/admin/adapters/", "/test"
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
        admin: Admin,
        ledger: Ledger,
        occupancy: Occupancy,
    ) -> None:
        self._body_limit = int(stack.router.max_body_mb * 2**20)
        self._within_s, self._system_weight = stack.router.answer_timeout_s, stack.router.system_weight
        self._limits = limits
        self._keys, self._engine, self._catalog, self._decider = keys, engine, catalog, decider
        self._admin, self._ledger, self._occupancy = admin, ledger, occupancy

    async def serve(self, request: Request) -> None:
        """Answer it. Raises ApiError."""
        path = request.path
        _allowed(request)
        match path:
            case "/health":
                status, word = (503, "draining") if self._occupancy.draining else (200, "ok")
                await request.reply(status, orjson.dumps({"status": word}))
            case "/ready":
                problem = self._problem()
                body = {"status": "unavailable" if problem else "ready", "problem": problem or None}
                await request.reply(503 if problem else 200, orjson.dumps(body))
            case "/metrics" | "/admin/decisions":
                self._ledger.show()
                await self._admin.serve(request)
            case "/route" | "/feedback":
                with self._occupancy:
                    await request.reply(200, orjson.dumps(await self._admitted(request)))
            case _ if path.startswith("/admin/"):
                with self._occupancy:
                    await self._admin.serve(request)
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
        # What a manager could not load is broken, and says so in its list; all else is ready.
        missing = () if self._admin.managed else self._catalog.missing()
        if missing and not self._engine.serving.problem:
            return f"the engine does not list {', '.join(missing)}"
        return self._engine.serving.problem

    async def _dry_run(self, request: Request, body: dict[str, Any], client: Client) -> dict[str, Any]:
        if not isinstance(body.get("text", ""), str) or not any(field in body for field in SUBJECTS):
            raise BadRequest('give a "text", or the body of a chat or completion request', param="text")
        usual = self._decider.thresholds
        under = dry_run.asked(body, usual)
        await self._engine.up(0)
        routed = await self._decider.decide(request, {"model": AUTO} | body, client, under)
        return dry_run.answer(routed, usual | under, self._system_weight)


def _allowed(request: Request) -> None:
    """Raises NotFound or MethodNotAllowed."""
    path, methods = request.path, _methods(request.path)
    if methods is None:
        raise NotFound(f"there is no {path} here", code="unknown_route")
    if request.method not in methods and (request.method != "HEAD" or "GET" not in methods):
        allowed = " or ".join(methods)
        raise MethodNotAllowed(f"{path} takes {allowed}, not {request.method}", allow=", ".join(methods))


def _methods(path: str) -> tuple[str, ...] | None:
    """None: there is no such route."""
    if path.startswith(ONE_MODEL):
        return ("GET",)
    if path.startswith(ONE_ADAPTER):  # looked at without it: an adapter may be named "test"
        return ("POST",) if path.removeprefix(ONE_ADAPTER).endswith(TEST) else ("DELETE",)
    return METHODS.get(path)

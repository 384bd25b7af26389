"""A forwarded request from its first byte to its last: counted, limited, decided, relayed, observed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from adapters import Stack
from router.access import Keys, Limits
from router.asgi import ClientGone, Request, parsed
from router.attribution import wanted
from router.call import Call
from router.decide import Decider
from router.endpoints import Endpoint
from router.engine import Engine
from router.errors import (
    ApiError,
    BadRequest,
    EngineTooSlow,
    EngineUnavailable,
    MethodNotAllowed,
)
from router.forward import Forwarder
from router.life import GONE, Ledger, Life, Occupancy
from router.tracing import Traces
from router.watch import Watch

PASSED_ON = frozenset((b"accept", b"user-agent", b"tracestate", b"anthropic-version", b"anthropic-beta"))
"""Request headers that the engine gets; keys and cookies stay here."""


class Completions:
    """The engine's routes, as clients may use them."""

    def __init__(
        self,
        stack: Stack,
        keys: Keys,
        limits: Limits,
        engine: Engine,
        decider: Decider,
        forwarder: Forwarder,
        ledger: Ledger,
        traces: Traces | None,
        occupancy: Occupancy,
    ) -> None:
        self._router, self._base = stack.router, stack.base.name
        self._body_limit = int(stack.router.max_body_mb * 2**20)
        self._keys, self._limits, self._engine = keys, limits, engine
        self._decider, self._forwarder = decider, forwarder
        self._ledger, self._traces, self._occupancy = ledger, traces, occupancy

    async def serve(self, endpoint: Endpoint, request: Request) -> None:
        """Answer it. Raises ApiError as long as nothing has been sent, or ClientGone."""
        if request.method != "POST":
            raise MethodNotAllowed(f"{endpoint.path} takes POST, not {request.method}", allow="POST")
        traceparent = (request.header(b"traceparent") or b"").decode("latin-1")
        life = Life(endpoint.path, request.id, traceparent or None)
        try:
            with self._occupancy:
                if self._traces:
                    self._traces.began(life)
                await self._admitted(endpoint, request, life)
        except ApiError as error:
            life.status, life.error = error.status, life.error or error.code or error.kind
            raise
        except asyncio.CancelledError as why:
            ended = self._cut_off(why)
            life.status, life.error = ended.status, ended.code
            raise ended from None
        except ClientGone:
            life.status, life.error = GONE, "client_gone"
            raise
        finally:
            life.end()
            self._ledger.add(life)
            await self._limits.settle(life)

    async def _admitted(self, endpoint: Endpoint, request: Request, life: Life) -> None:
        life.client = self._keys.client(request)
        await self._limits.admit(life.client)
        body = await request.read(self._body_limit)
        await self._limits.charge(life, len(body))
        life.admitted = True
        await self._answered(endpoint, request, parsed(body), life)

    async def _answered(self, endpoint: Endpoint, request: Request, body: dict[str, Any], life: Life) -> None:
        _check(body, endpoint)
        explain = wanted(request, endpoint)
        if endpoint.model_optional and body.get("model") is None:
            body["model"] = self._base
        call: Call | None = None
        try:
            async with Watch(request.receive, self._router.answer_timeout_s) as watch:
                await self._engine.up(self._router.engine_wait_s)
                life.routed = await self._decider.decide(request, body, life.client)
                passed_on = _passed_on(request, life)
                call = Call(endpoint, body, passed_on, life.routed, request, life, watch.end, explain, watch.until)
                await self._forwarder.forward(call)
        except (TimeoutError, asyncio.CancelledError) as why:
            error = self._cut_off(why)
            if call is None:
                raise error from None
            await call.last_word(error)

    def _cut_off(self, why: BaseException) -> ApiError:
        """What the client is told. Its leaving is a ClientGone: only the server cancels, when it has drained."""
        if isinstance(why, TimeoutError):
            limit = f"{self._router.answer_timeout_s:g} s (router.answer_timeout_s)"
            return EngineTooSlow(f"the answer took longer than {limit}")
        if task := asyncio.current_task():
            task.uncancel()
        return EngineUnavailable("this router is shutting down, and the answer took longer than router.drain_s")


def _check(body: Mapping[str, Any], endpoint: Endpoint) -> None:
    """The little without which there is nothing to decide or forward; the rest is the engine's to judge."""
    needed = endpoint.needs[0]
    if body.get(needed) is None and not any(body.get(field) is not None for field in endpoint.needs):
        raise BadRequest(f'"{needed}" is missing', param=needed, code="missing_field")
    messages = body.get("messages")
    if messages is not None and not isinstance(messages, list):
        raise BadRequest('"messages" must be a list of messages', param="messages")


def _passed_on(request: Request, life: Life) -> dict[str, str]:
    sent = request.headers(PASSED_ON)
    if life.traceparent:
        sent["traceparent"] = life.traceparent
    sent["content-type"] = "application/json"
    return sent

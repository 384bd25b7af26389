"""The ASGI application, built from its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from adapters import ClassifierName, Stack
from router.access import Keys, Limits
from router.admin import Admin
from router.asgi import ClientGone, Receive, Request, Scope, Send
from router.catalog import Catalog
from router.classify import Relabelling
from router.complete import Completions
from router.decide import Decider
from router.decisions import DecisionLog
from router.endpoints import ENDPOINTS
from router.engine import Engine
from router.errors import ApiError, EngineUnavailable
from router.forward import Forwarder
from router.life import Ledger, Occupancy
from router.manager import Manager
from router.metrics import Metrics
from router.own import Own
from router.roster import Roster
from router.tracing import to_collector
from router.upstream import Upstream

log = logging.getLogger(__name__)


def create_app(
    stack: Stack,
    classifiers: Mapping[ClassifierName, Relabelling],
    upstream: Upstream,
    manager: Manager | None = None,
) -> App:
    """The router from its parts; nothing runs until the server's lifespan starts. `manager`: who loads adapters.

    Raises ConfigError when the decision log cannot be opened.
    """
    return App(stack, Roster(stack, classifiers, manager), upstream, manager)


class App:
    """One router process."""

    def __init__(self, stack: Stack, roster: Roster, upstream: Upstream, manager: Manager | None) -> None:
        router = stack.router
        self._roster, self._upstream, self._manager = roster, upstream, manager
        self._engine = engine = Engine(stack, upstream, roster)
        self.occupancy = Occupancy()
        self._limits = Limits(router, self.occupancy)
        keys, catalog, metrics = Keys(router), Catalog(stack, engine, roster), Metrics(self.occupancy)
        decider = Decider(stack, roster, catalog)
        kept = _decision_log(stack)
        traces = to_collector(router.otlp) if router.otlp else None
        self._ledger = Ledger([one for one in (traces, metrics, kept) if one])
        self._held_back = [one for one in (traces, kept) if one]
        self._completions = Completions(
            stack, keys, self._limits, engine, decider, Forwarder(stack, upstream, engine, roster),
            self._ledger, traces, self.occupancy,
        )  # fmt: skip
        self._metrics = metrics
        admin = Admin(stack, keys, kept, manager, metrics)
        self._own = Own(stack, keys, self._limits, engine, catalog, decider, admin, self._ledger, self.occupancy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] == "http":
            await self._http(Request(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        watching = (self._engine.watch(), self._metrics.watch(), self._roster.watch(self._engine.refresh))
        watchers = [asyncio.create_task(one) for one in watching]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for watcher in watchers:
            watcher.cancel()
        self._roster.close()
        await self._upstream.close()
        if self._manager:
            await self._manager.close()
        self._ledger.show()
        await self._limits.close()
        for each in self._held_back:
            await asyncio.to_thread(each.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, request: Request) -> None:
        endpoint = ENDPOINTS.get(request.path)
        try:
            if endpoint:
                await self._completions.serve(endpoint, request)
            else:
                await self._own.serve(request)
        except ApiError as error:
            await request.fail(error, anthropic=bool(endpoint and endpoint.anthropic))
        except ClientGone:
            return
        except asyncio.CancelledError:  # of those that router/complete.py does not see: the server has drained
            if task := asyncio.current_task():
                task.uncancel()
            await request.fail(EngineUnavailable("this router is shutting down"))
        except Exception:
            log.exception("a fault of the router's own, request %s", request.id)
            await request.fail(ApiError("the router failed; its log says why"))


def _decision_log(stack: Stack) -> DecisionLog | None:
    router = stack.router
    return DecisionLog(stack.below(router.decision_log), router.decision_log_days) if router.decision_log else None

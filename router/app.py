"""The ASGI application: routes, and the life of one request from its first byte to its last."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from adapters import AUTO, Stack
from router.asgi import (
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    cancelled_when_gone,
    header,
    read_json,
    send_body,
    send_error,
)
from router.catalog import Catalog
from router.choose import Decision, Policy, Reason, choose, probabilities
from router.classify import Classifier, ClassifierError, Judged, Scorer
from router.conversation import subject
from router.engine import Engine
from router.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from router.sse import event, whole_events
from router.upstream import Answer, Upstream, UpstreamError

COMPLETIONS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
"""The forwarded routes, and the field that each cannot do without."""

PASSED_ON = {b"accept", b"user-agent", b"traceparent", b"tracestate"}
"""Request headers that the engine gets; keys and cookies stay here."""

log = logging.getLogger(__name__)

UNJUDGED = Judged({}, 0.0, cached=False)


@dataclass(frozen=True)
class Routed:
    """A decision together with what it was made from."""

    decision: Decision
    scores: dict[str, float]
    judged: Judged

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The `x-lora-select-*` headers."""
        pairs = [
            (b"x-lora-select-adapter", self.decision.model.encode()),
            (b"x-lora-select-reason", self.decision.reason.encode()),
            (b"x-lora-select-classify-ms", f"{self.judged.ms:.1f}".encode()),
        ]
        if self.decision.score is not None:
            pairs.append((b"x-lora-select-score", f"{self.decision.score:.4f}".encode()))
        return pairs


def create_app(stack: Stack, classifier: Classifier, upstream: Upstream) -> App:
    """The router from its parts; nothing runs until the server's lifespan starts."""
    return App(stack, Scorer(classifier, stack.router.cache_entries), upstream, Engine(stack, upstream))


class App:
    """One router process."""

    def __init__(self, stack: Stack, scorer: Scorer, upstream: Upstream, engine: Engine) -> None:
        self._stack = stack
        self._scorer = scorer
        self._upstream = upstream
        self._engine = engine
        self._policy = Policy(stack.base.name, stack.router.threshold)
        self._limit = int(stack.router.max_body_mb * 2**20)
        self._catalog = Catalog(stack, engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        watcher = asyncio.create_task(self._engine.watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watcher.cancel()
        self._scorer.close()
        await self._upstream.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = header(scope, b"x-request-id") or uuid.uuid4().hex.encode()
        identity = [(b"x-request-id", request_id)]
        try:
            await self._route(scope, receive, send, identity)
        except ApiError as error:
            await send_error(send, error, identity)
        except ClientGone:
            return
        except Exception:
            log.exception("a fault of the router's own, request %s", request_id.decode("latin-1"))
            await send_error(send, ApiError("the router failed; its log says why"), identity)

    async def _route(self, scope: Scope, receive: Receive, send: Send, identity: Headers) -> None:
        path, method = scope["path"], scope["method"]
        expected = "POST" if path in COMPLETIONS or path == "/route" else "GET"
        known = path in COMPLETIONS or path in ("/route", "/health", "/ready", "/v1/models")
        known = known or path.startswith("/v1/models/")
        if not known:
            raise NotFound(f"there is no {path} here", code="unknown_route")
        if method != expected and (method, expected) != ("HEAD", "GET"):
            raise MethodNotAllowed(f"{path} takes {expected}, not {method}", allow=expected)
        if path in COMPLETIONS:
            await self._complete(scope, receive, send, identity)
        elif path == "/route":
            await self._dry_run(scope, receive, send, identity)
        elif path == "/health":
            await send_body(send, 200, b'{"status":"ok"}', identity)
        elif path == "/ready":
            await self._ready(send, identity)
        elif path == "/v1/models":
            await send_body(send, 200, orjson.dumps(self._catalog.all()), identity)
        else:
            model = self._catalog.one(path.removeprefix("/v1/models/"))
            await send_body(send, 200, orjson.dumps(model), identity)

    async def _ready(self, send: Send, identity: Headers) -> None:
        problem = self._engine.serving.problem
        if not problem and self._engine.missing:
            problem = f"the engine does not list {', '.join(self._engine.missing)}"
        body = {"status": "unavailable" if problem else "ready", "problem": problem or None}
        await send_body(send, 503 if problem else 200, orjson.dumps(body), identity)

    async def _dry_run(self, scope: Scope, receive: Receive, send: Send, identity: Headers) -> None:
        body = await read_json(scope, receive, self._limit)
        if not isinstance(body.get("text", ""), str) or not any(
            key in body for key in ("text", *COMPLETIONS.values())
        ):
            raise BadRequest('give a "text", or the body of a chat or completion request', param="text")
        routed = await self._decide(body | {"model": body.get("model", AUTO)}, body)
        answer = {
            "model": routed.decision.model,
            "score": routed.decision.score,
            "reason": routed.decision.reason,
            "scores": routed.scores,
            "classify_ms": round(routed.judged.ms, 2),
            "cached": routed.judged.cached,
        }
        await send_body(send, 200, orjson.dumps(answer), identity)

    async def _complete(self, scope: Scope, receive: Receive, send: Send, identity: Headers) -> None:
        body = await read_json(scope, receive, self._limit)
        needed = COMPLETIONS[scope["path"]]
        if needed not in body:
            raise BadRequest(f'"{needed}" is missing', param=needed, code="missing_field")
        if needed == "messages" and not isinstance(body[needed], list):
            raise BadRequest('"messages" must be a list of messages', param=needed)
        async with cancelled_when_gone(receive):
            routed = await self._decide(body, {needed: body[needed]})
            headers = [*identity, *routed.headers()]
            try:
                await self._forward(scope, body | {"model": routed.decision.model}, send, headers)
            except ApiError as error:
                await send_error(send, error, headers)

    async def _decide(self, body: dict[str, Any], words: dict[str, Any]) -> Routed:
        """Who answers `body`; `words` is the part of it that speaks about its subject."""
        name = body.get("model")
        if not isinstance(name, str):
            raise BadRequest(f'"model" must be a name: {", ".join(self._catalog.names())}', param="model")
        if self._catalog.known(name) != AUTO:
            return Routed(Decision(name, None, Reason.NAMED), {}, UNJUDGED)
        text = subject(words)
        if not text:
            return self._base(Reason.NO_TEXT)
        try:
            judged = await self._scorer.judge(text)
        except TimeoutError:
            return self._base(Reason.CLASSIFIER_TIMEOUT)
        except ClassifierError:
            return self._base(Reason.CLASSIFIER_ERROR)
        scores = probabilities(judged.logits, (self._stack.base.name, *self._engine.serving.adapters))
        return Routed(choose(scores, self._policy), scores, judged)

    def _base(self, reason: Reason) -> Routed:
        return Routed(Decision(self._stack.base.name, None, reason), {}, UNJUDGED)

    async def _forward(self, scope: Scope, body: dict[str, Any], send: Send, headers: Headers) -> None:
        """Relay the engine's answer. Raises ApiError as long as nothing has been sent."""
        sent = {key.decode(): value.decode("latin-1") for key, value in scope["headers"] if key in PASSED_ON}
        sent["content-type"] = "application/json"
        try:
            raw = orjson.dumps(body)
        except orjson.JSONEncodeError as error:
            raise BadRequest(f"the body is nested too deep: {error}", code="invalid_json") from None
        try:
            async with self._upstream.request("POST", scope["path"], sent, raw) as answer:
                if answer.is_stream:
                    await self._stream(answer, send, headers)
                else:
                    whole = await answer.read()
                    await self._start(answer, send, headers)
                    await send({"type": "http.response.body", "body": whole})
        except UpstreamError as error:
            raise self._engine.lost(error) from error

    async def _start(self, answer: Answer, send: Send, headers: Headers) -> None:
        ours = {key for key, _ in headers}
        kept = [(key, value) for key, value in answer.headers if key not in ours]
        await send({"type": "http.response.start", "status": answer.status, "headers": [*kept, *headers]})

    async def _stream(self, answer: Answer, send: Send, headers: Headers) -> None:
        """Events pass as they come; once started, an error can only be the stream's last event."""
        await self._start(answer, send, headers)
        try:
            async for chunk in whole_events(answer.chunks()):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except UpstreamError as error:
            last = event(self._engine.lost(error).body())
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

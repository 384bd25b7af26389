"""One request on its way to the engine and back: retried, fallen back, cached, and cancelled with its client."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from adapters import Stack
from router.attribution import Attribution
from router.cache import ResponseCache, Stored
from router.call import Call
from router.endpoints import filled
from router.engine import Engine
from router.errors import ApiError, BadRequest, NotFound
from router.roster import Roster
from router.sse import count, is_error, is_last, whole_events
from router.upstream import Answer, Refused, Upstream, UpstreamError
from router.usage import MARK, note, without_usage

log = logging.getLogger(__name__)

NO_ROUTE = b'{"detail":"Not Found"}'
"""What vLLM answers where it has no such route at all; of a model it says more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer whose first byte is here: the whole body, or a stream's first events and the rest."""

    answer: Answer
    first: bytes
    rest: AsyncIterator[bytes] | None = None

    @property
    def failed(self) -> bool:
        """The model is gone or broken, which is not the client's fault.

        A fault that vLLM meets when it has begun a stream is told in the stream's first event.
        """
        if self.rest is None or self.answer.status != 200:
            return self.answer.status == 404 or self.answer.status >= 500
        return is_error(self.first)


class Forwarder:
    """Relays calls to the engine."""

    def __init__(self, stack: Stack, upstream: Upstream, engine: Engine, roster: Roster) -> None:
        router = stack.router
        self._stack, self._upstream, self._engine, self._roster = stack, upstream, engine, roster
        self._wait_s = router.engine_wait_s
        self._attribution = Attribution(upstream)
        self._cache = ResponseCache(router.response_cache_mb, router.response_cache_s)

    async def forward(self, call: Call) -> None:
        """Relay the engine's answer, or tell the client what went wrong.

        Once the answer has started nothing is tried again, and an error is the stream's last event.
        """
        try:
            await self._forward(call)
        except UpstreamError as error:
            await call.fail(self._engine.lost(error))
        except ApiError as error:
            await call.fail(error)
        except Exception:
            log.exception("a fault of the router's own, request %s", call.life.request_id)
            await call.fail(ApiError("the router failed; its log says why"))

    async def _forward(self, call: Call) -> None:
        body = self._body(call)
        key = self._key(call, body)
        if key is not None:
            stored = self._cache.get(key)
            call.life.cache = "hit" if stored else "miss"
            if stored:
                await call.start(200, stored.headers)
                await call.send(stored.body)
                return
        opened = await self._opened(call, body)
        if opened.answer.status == 404:
            self._engine.look()
        try:
            if opened.answer.status == 404 and opened.first == NO_ROUTE:  # embeddings, of a base that generates
                raise NotFound(f"the engine has no {call.endpoint.path} with this base", code="unknown_route")
            keep = key if opened.answer.status == 200 and call.routed.asked_for == body["model"] else None
            if opened.rest is None:
                await self._whole(call, opened, keep)
            else:
                await self._stream(call, opened, opened.rest, keep)
        finally:
            opened.answer.leave()

    def _explains(self, call: Call) -> bytes | None:
        """How closely. Of an adapter and the base there is nothing more to tell than the headers do."""
        return call.explain if call.routed.decision.model in self._roster.lineup.stack.lag else None

    def _key(self, call: Call, body: dict[str, Any]) -> bytes | None:
        model, lineup = body["model"], self._roster.lineup
        version = lineup.up.get(model, "")
        # Of an engine without a manager of ours nobody tells when a library changes.
        if call.explain or (model in lineup.stack.lag and (self._stack.engine.url or not version)):
            return None
        try:
            return self._cache.key(call.endpoint, body, call.hide_usage, version)
        except orjson.JSONEncodeError:
            return None  # nested too deep, which `_dumped` tells the client

    def _body(self, call: Call) -> dict[str, Any]:
        """What the engine gets: `model`, the adapter's defaults, an id of our own for an answer that is explained,
        and for a stream the request for its usage. What the client is told with the answer is noted: an adapter
        may be gone when its last answer begins."""
        adapter = self._roster.lineup.stack.adapters.get(call.routed.decision.model)
        sent = filled(call.body, call.endpoint, call.routed.asked_for, adapter)
        call.disclaimer = adapter.disclaimer if adapter and call.endpoint.generates else None
        if call.explain:  # with an id of its choice, a client could ask for the explanation of another's answer
            sent["request_id"] = secrets.token_hex(16)
        if self._stack.router.stream_usage and sent.get("stream") is True and not call.endpoint.tells_usage:
            options = sent.get("stream_options")
            if options is None or (isinstance(options, dict) and not options.get("include_usage")):
                # continuous_usage_stats says nothing as long as include_usage is not there.
                others = {key: value for key, value in (options or {}).items() if key != "continuous_usage_stats"}
                sent["stream_options"] = {**others, "include_usage": True}
                call.hide_usage = True
        return sent

    async def _opened(self, call: Call, body: dict[str, Any]) -> Opened:
        """The first byte of the model that was chosen, or of the base where `auto` chose one that fails."""
        base, chosen, status = self._stack.base.name, call.routed, 0
        if not chosen.by_choice or chosen.decision.model == base:
            return await self._asked(call, body)
        try:
            opened = await self._asked(call, body)
            if not opened.failed:
                return opened
            status = opened.answer.status
            opened.answer.leave()
        except UpstreamError:
            log.warning("%s broke off before its first byte, request %s", body["model"], call.life.request_id)
        self._engine.look()
        call.routed = call.life.routed = chosen.fallen_back(base)
        opened = await self._asked(call, self._body(call))
        if opened.failed and opened.answer.status == status:  # the request's fault, or the engine's: no adapter's
            call.routed = call.life.routed = chosen
        return opened

    async def _asked(self, call: Call, body: dict[str, Any]) -> Opened:
        """One model's answer. A connection that is refused is tried again while the engine may be restarting:
        nothing has been sent. Raises UpstreamError, or EngineUnavailable when the engine stays away."""
        raw = _dumped(body)
        deadline = time.monotonic() + self._wait_s
        while True:
            await self._engine.up(max(0.0, deadline - time.monotonic()))
            try:
                answer = await self._upstream.ask("POST", call.endpoint.path, call.headers, raw)
            except Refused as error:
                self._engine.refused(error)
                continue
            except ValueError as error:
                raise BadRequest(f"a header that cannot be passed on: {error}") from None
            try:
                return await _opened(answer)
            except BaseException:
                answer.leave()
                raise

    async def _whole(self, call: Call, opened: Opened, keep: bytes | None) -> None:
        answer, headers, body = opened.answer, opened.answer.headers, opened.first
        if MARK in body:
            note(call.life, body)
        if keep is not None:
            self._cache.put(keep, Stored(answer.headers, body))
        if answer.status == 200 and (detail := self._explains(call)):
            headers, body = await self._attribution.in_body(headers, body, detail, call.until)
        await call.start(answer.status, headers)
        await call.send(body)

    async def _stream(self, call: Call, opened: Opened, rest: AsyncIterator[bytes], keep: bytes | None) -> None:
        """Events pass as they come, untouched."""
        await call.start(opened.answer.status, opened.answer.headers)
        kept: list[bytes] | None = None if keep is None else []
        size, events = 0, opened.first
        while events:
            call.life.events += count(events)
            if MARK in events:
                note(call.life, events)
                if call.hide_usage:
                    events = without_usage(events)
            if is_error(events):
                call.life.error, kept = "engine_error", None
            if kept is not None:
                size += len(events)
                kept.append(events)
                kept = kept if self._cache.fits(size) else None
            if is_last(events):
                if keep is not None and kept:
                    self._cache.put(keep, Stored(opened.answer.headers, b"".join(kept)))
                if (detail := self._explains(call)) and not call.life.error:
                    events = await self._attribution.in_stream(opened.first, events, detail, call.until)
                call.complete()
            await call.send(events, more=True)
            events = await anext(rest, b"")
        await call.send(b"")


async def _opened(answer: Answer) -> Opened:
    if answer.status > 599:
        raise UpstreamError(f"the engine answered with a status that HTTP does not have: {answer.status}")
    if not answer.is_stream:
        return Opened(answer, await answer.read())
    rest = whole_events(answer.chunks())
    return Opened(answer, await anext(rest, b""), rest)


def _dumped(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the body is nested too deep: {error}", code="invalid_json") from None

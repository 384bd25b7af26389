"""Who answers a request: the model it names, or the adapter that fits what its user says."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import orjson
from cachetools import LRUCache

from adapters import AUTO, Stack
from router.access import Client
from router.asgi import Request
from router.catalog import Catalog
from router.choose import Decision, Reason
from router.classify.batcher import ClassifierError
from router.classify.scorer import Judged, Scorer
from router.conversation import Rules, Words, conclude, read
from router.errors import BadRequest
from router.tags import HEADER, Tags

Asked = tuple[bytes, tuple[str, ...]]
"""What a decision depends on: the digest of a request's words, and the candidates."""


@dataclass(frozen=True)
class Routed:
    """A decision together with what it was made from. One that is known already is the same object each time.

    `text` is the user's last turn, where `router.log_prompts` allows it to be kept; `text_sha256` always.
    """

    decision: Decision
    scores: Mapping[str, float] = field(default_factory=dict)
    classify_ms: float = 0.0
    cached: bool = False
    text_sha256: str | None = None
    text: str | None = None

    @property
    def by_choice(self) -> bool:
        """The router chose; the client did not name the model."""
        return self.decision.reason is not Reason.NAMED

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The `x-lora-select-*` headers."""
        decision = self.decision
        pairs = [
            (b"x-lora-select-adapter", decision.model.encode()),
            (b"x-lora-select-reason", decision.reason.encode()),
            (b"x-lora-select-classify-ms", b"%.1f" % self.classify_ms),
        ]
        if decision.score is not None:
            pairs.append((b"x-lora-select-score", b"%.4f" % decision.score))
        if decision.reason is Reason.FALLBACK:
            pairs.append((b"x-lora-select-fallback", b"adapter_error"))
        return tuple(pairs)

    @cached_property
    def scores_json(self) -> str | None:
        """For the decision log."""
        return orjson.dumps(self.scores).decode() if self.scores else None

    def fallen_back(self, base: str) -> Routed:
        """The same after the chosen adapter has failed: the base answers."""
        score = self.scores.get(base)
        return replace(self, decision=Decision(base, score, Reason.FALLBACK))


class Decider:
    """Decides from the request alone, so that every replica decides alike."""

    def __init__(self, stack: Stack, scorer: Scorer, catalog: Catalog) -> None:
        self._base = stack.base.name
        self._system_weight = stack.router.system_weight
        self._scorer = scorer
        self._catalog = catalog
        self._tags = Tags(stack.adapters)
        self._known: LRUCache[Asked, Routed] = LRUCache(stack.router.cache_entries)
        self._keep_text = stack.router.log_prompts

    async def decide(self, request: Request, body: Mapping[str, Any], client: Client) -> Routed:
        """Raises BadRequest for a model that is no name or a tag that does not exist, NotFound, Forbidden."""
        name = body.get("model")
        if not isinstance(name, str):
            names = ", ".join(self._catalog.names(client))
            raise BadRequest(f'"model" must be a name: {names}', param="model")
        if self._catalog.known(name, client) != AUTO:
            return Routed(Decision(name, None, Reason.NAMED))
        wanted = self._tags.wanted(body.get("metadata"), request.header(HEADER))
        adapters = self._tags.narrow(self._catalog.adapters(client), wanted)
        return await self._choose(body, (self._base, *adapters))

    async def _choose(self, body: Mapping[str, Any], candidates: tuple[str, ...]) -> Routed:
        words = read(body)
        if not words.turns:
            return Routed(Decision(self._base, None, Reason.NO_TEXT))
        key = (words.digest(), candidates)
        if known := self._known.get(key):
            return known
        routed = await self._judge(words, candidates)
        if routed.scores and self._known.maxsize:
            self._known[key] = replace(routed, classify_ms=0.0, cached=True)
        return routed

    async def _judge(self, words: Words, candidates: tuple[str, ...]) -> Routed:
        if len(candidates) == 1:
            return self._unjudged(Reason.NO_CANDIDATE, words)
        with_system = bool(words.system and self._system_weight)
        texts = [*words.turns, words.system] if with_system else words.turns
        began = time.perf_counter()
        try:
            judged = await self._scorer.judge(texts, candidates)
        except (TimeoutError, ClassifierError) as error:
            waited_ms = (time.perf_counter() - began) * 1000
            timeout = isinstance(error, TimeoutError)
            return self._unjudged(
                Reason.CLASSIFIER_TIMEOUT if timeout else Reason.CLASSIFIER_ERROR, words, waited_ms
            )
        turns, system = (judged[:-1], judged[-1].scores) if with_system else (judged, None)
        rules = Rules(self._base, turns[-1].threshold, self._system_weight)
        decision, scores = conclude(words, [turn.scores for turn in turns], system, rules)
        return Routed(
            decision, scores, _waited_ms(judged), all(one.cached for one in judged), *self._logged(words)
        )

    def _unjudged(self, reason: Reason, words: Words, waited_ms: float = 0.0) -> Routed:
        return Routed(Decision(self._base, None, reason), {}, waited_ms, False, *self._logged(words))

    def _logged(self, words: Words) -> tuple[str, str | None]:
        text = words.turns[-1]
        return hashlib.sha256(text.encode()).hexdigest(), text if self._keep_text else None


def _waited_ms(judged: list[Judged]) -> float:
    """The texts of a request are judged side by side: the slowest is what the client waited for."""
    return max(one.ms for one in judged)

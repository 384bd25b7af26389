"""Who answers a request: the model it names, or the adapter that fits what its user says."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import orjson

from adapters import AUTO, Stack, split
from router.access import Client
from router.asgi import Request
from router.catalog import Catalog
from router.choose import Decision, Policy, Reason
from router.classify.batcher import ClassifierError
from router.classify.scorer import Judged, Scorer
from router.conversation import Rules, Words, conclude, opening, read
from router.errors import BadRequest
from router.roster import Among, Lineup, Roster
from router.split import pick
from router.tags import HEADER


@dataclass(frozen=True)
class Grounds:
    """How the texts of a request were judged, turn by turn; `system` is None where no system prompt counts."""

    words: Words
    turns: Sequence[Judged]
    system: Judged | None


@dataclass(frozen=True)
class Routed:
    """A decision together with what it was made from. One that is known already is the same object each time.

    `text` is the user's last turn, where `router.log_prompts` allows it to be kept; `text_sha256` always. `texts`:
    how many the request has, its turns and its system prompt; those beside `text` are in `earlier`, as JSON, where
    they may be kept. `judged_by`: the signature of who judged the last turn. `part`: the name under which the
    engine has the version that answers, where the adapter has versions. `grounds`: not of what is known already.
    """

    decision: Decision
    scores: Mapping[str, float] = field(default_factory=dict)
    classify_ms: float = 0.0
    cached: bool = False
    text_sha256: str | None = None
    text: str | None = None
    texts: int | None = None
    earlier: str | None = None
    judged_by: str | None = None
    part: str = ""
    grounds: Grounds | None = None

    @property
    def by_choice(self) -> bool:
        """The router chose; the client did not name the model."""
        return self.decision.reason is not Reason.NAMED

    @property
    def asked_for(self) -> str:
        """The model's name in the engine."""
        return self.part or self.decision.model

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
        if self.part:
            pairs.append((b"x-lora-select-version", split(self.part)[1].encode()))
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
        return replace(self, decision=Decision(base, score, Reason.FALLBACK), part="")


class Decider:
    """Decides from the request alone, so that every replica decides alike."""

    def __init__(self, stack: Stack, roster: Roster, catalog: Catalog) -> None:
        self._base, self._unsure = stack.base.name, stack.unsure
        self._system_weight = stack.router.system_weight
        self._roster, self._catalog = roster, catalog
        self._keep_text = stack.router.log_prompts

    @property
    def thresholds(self) -> dict[str, float]:
        """By classifier, in the order in which they are asked."""
        return self._roster.lineup.scorer.thresholds

    async def decide(
        self, request: Request, body: Mapping[str, Any], client: Client, under: Mapping[str, float] | None = None
    ) -> Routed:
        """Raises BadRequest for a model that is no name or a tag that does not exist, NotFound, Forbidden.

        Adapters that came or went while a classifier was asked are seen: none is chosen that is gone by then.
        `under` is a dry run's, which is told the grounds: the thresholds, by classifier, that it wants changed.
        """
        while True:
            lineup = self._roster.lineup
            routed = await self._decided(lineup, request, body, client, under)
            if lineup is self._roster.lineup:
                return routed

    async def _decided(
        self,
        lineup: Lineup,
        request: Request,
        body: Mapping[str, Any],
        client: Client,
        under: Mapping[str, float] | None,
    ) -> Routed:
        name = body.get("model")
        if not isinstance(name, str):
            names = ", ".join(self._catalog.names(client))
            raise BadRequest(f'"model" must be a name: {names}', param="model")
        if self._catalog.known(name, client) != AUTO:
            adapter, version = split(name)
            routed = Routed(Decision(adapter, None, Reason.NAMED), part=name if version else "")
            return routed if version else self._versioned(routed, body)
        wanted = lineup.tags.wanted(body.get("metadata"), request.header(HEADER))
        adapters = lineup.tags.narrow(self._catalog.adapters(client), wanted)
        # A virtual model carries no tags: where they are asked for it is left out, as an adapter without them is.
        unsure = self._unsure if not wanted and self._unsure in self._catalog.virtual(client) else None
        among = Among((self._base, *adapters), unsure)
        return self._versioned(await self._choose(lineup, body, among, under), body)

    def _versioned(self, routed: Routed, body: Mapping[str, Any]) -> Routed:
        """Of an adapter with versions, the one that this conversation has all along."""
        parts = self._catalog.parts(routed.decision.model)
        if not parts or routed.decision.model in parts:
            return routed
        return replace(routed, part=pick(parts, f"{routed.decision.model}\n{opening(body)}"))

    async def _choose(
        self, lineup: Lineup, body: Mapping[str, Any], among: Among, under: Mapping[str, float] | None
    ) -> Routed:
        words = read(body)
        if not words.turns:
            return Routed(Decision(self._base, None, Reason.NO_TEXT))
        key, decided = (words.digest(), among), lineup.decided
        known: Routed | None = decided.get(key) if under is None else None  # which has no grounds any more
        if known:
            return known
        routed = await self._judge(lineup.scorer.under(under) if under else lineup.scorer, words, among)
        if routed.scores and decided.maxsize and not under:
            decided[key] = replace(routed, classify_ms=0.0, cached=True, grounds=None)
        return routed

    async def _judge(self, scorer: Scorer, words: Words, among: Among) -> Routed:
        if len(among.candidates) == 1:
            return self._unjudged(Reason.NO_CANDIDATE, words)
        with_system = bool(words.system and self._system_weight)
        texts = [*words.turns, words.system] if with_system else words.turns
        began = time.perf_counter()
        try:
            judged = await scorer.judge(texts, among.candidates)
        except (TimeoutError, ClassifierError) as error:
            waited_ms = (time.perf_counter() - began) * 1000
            timeout = isinstance(error, TimeoutError)
            return self._unjudged(
                Reason.CLASSIFIER_TIMEOUT if timeout else Reason.CLASSIFIER_ERROR, words, waited_ms
            )
        turns, system = (judged[:-1], judged[-1]) if with_system else (judged, None)
        rules = Rules(Policy(self._base, turns[-1].threshold, among.unsure), self._system_weight)
        of_system = system.scores if system else None
        decision, scores = conclude(words, [turn.scores for turn in turns], of_system, rules)
        cached, by, grounds = all(one.cached for one in judged), turns[-1].signature, Grounds(words, turns, system)
        told = self._logged(words)
        return Routed(decision, scores, _waited_ms(judged), cached, *told, judged_by=by, grounds=grounds)

    def _unjudged(self, reason: Reason, words: Words, waited_ms: float = 0.0) -> Routed:
        return Routed(Decision(self._base, None, reason), {}, waited_ms, False, *self._logged(words))

    def _logged(self, words: Words) -> tuple[str, str | None, int, str | None]:
        text, texts = words.turns[-1], len(words.turns) + bool(words.system)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if not self._keep_text:
            return digest, None, texts, None
        earlier = {"turns": words.turns[:-1], "system": words.system}
        return digest, text, texts, orjson.dumps(earlier).decode() if texts > 1 else None


def _waited_ms(judged: list[Judged]) -> float:
    """The texts of a request are judged side by side: the slowest is what the client waited for."""
    return max(one.ms for one in judged)

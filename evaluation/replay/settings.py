"""The settings that a log is replayed under, and what of a log's scores still holds under them: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from adapters import ClassifierName, Stack
from evaluation.replay.log import Entry, Scalars, Signature
from router.choose import probabilities
from router.classify.scorer import signature


class Why(StrEnum):
    """Why the logged scores do not decide a request; in words, for the report."""

    NAMED = "the client named the model"
    NO_TEXT = "the request had no text"
    NO_CANDIDATE = "key or tags left no adapter to choose"
    NO_SCORES = "the classifier had failed or was late, so there are no scores"
    OTHER_CLASSIFIER = "another classifier judged it"
    OTHER_LABELS = "other labels, adapters or classifier weights judged it"
    OTHER_CHAIN = "these settings would ask another classifier of the row"
    CONVERSATION = "turns and system prompt are weighed under one temperature, and the log has their mean only"


@dataclass(frozen=True)
class Scores:
    """Probabilities under the new settings, and the threshold of who gave them. `assumed`: an older router's row,
    which does not say who judged."""

    scores: Mapping[str, float]
    threshold: float
    assumed: bool = False


@dataclass(frozen=True)
class Settings:
    """A stack to replay under. `named`: its classifiers are not those of its file."""

    stack: Stack
    signature: Signature
    named: bool = False

    @classmethod
    def of(cls, stack: Stack, named: bool = False) -> Settings:
        """Without loading a classifier."""
        return cls(stack, Signature.read(signature(stack, stack.router.classifier)), named)

    @property
    def chain(self) -> tuple[Scalars, ...]:
        """The classifiers, in the order in which they are asked."""
        return self.signature.chain

    def may_use(self, key: str) -> tuple[str, ...]:
        """The adapters that an API key is good for; all, where the stack does not know it."""
        return tuple(name for name in self.stack.adapters if self._allowed(key, name))

    def unsure(self, key: str) -> str | None:
        """The virtual model that answers where no adapter reaches its threshold."""
        unsure = self.stack.unsure
        return unsure if unsure and self._allowed(key, unsure) else None

    def _allowed(self, key: str, name: str) -> bool:
        found = self.stack.router.keys.get(key)
        return found is None or found.adapters is None or name in found.adapters


def with_threshold(stack: Stack, threshold: float) -> Stack:
    """The stack with one threshold for all of its classifiers."""
    router = stack.router
    names: tuple[ClassifierName, ...] = router.classifier
    calibration = {name: router.calibrated(name).model_copy(update={"threshold": threshold}) for name in names}
    merged = {**router.calibration, **calibration}
    return stack.model_copy(update={"router": router.model_copy(update={"calibration": merged})})


def from_scores(entry: Entry, settings: Settings) -> Scores | Why:
    """What the logged scores become under the settings, where that is exact; else why it is not."""
    if not entry.scores:
        return Why.NO_SCORES
    made, chain = entry.judged_by, settings.chain
    if made is None:
        return _assumed(entry, settings)
    last = len(made.chain) - 1
    if foreign := _foreign(made, settings):
        return foreign
    if (entry.texts or 1) > 1 and not _mean_holds(made, settings):
        return Why.CONVERSATION
    scores = _tempered(entry.scores, made.chain[last].temperature / chain[last].temperature)
    unasked = all(
        old.temperature == new.temperature and old.threshold <= new.threshold
        for old, new in zip(made.chain[:last], chain, strict=False)
    )
    sure = last + 1 == len(chain) or max(scores.values()) >= chain[last].threshold
    return Scores(scores, chain[last].threshold) if unasked and sure else Why.OTHER_CHAIN


def _foreign(made: Signature, settings: Settings) -> Why | None:
    if [old.classifier for old in made.chain] != [new.classifier for new in settings.chain[: len(made.chain)]]:
        return Why.OTHER_CLASSIFIER
    same = all(old.digest == new.digest for old, new in zip(made.chain, settings.chain, strict=False))
    return None if same else Why.OTHER_LABELS


def _mean_holds(made: Signature, settings: Settings) -> bool:
    """Each text of a conversation may have been judged by another classifier: only one leaves no doubt."""
    if len(made.chain) > 1 or len(settings.chain) > 1:
        return False
    same = made.chain[0].temperature == settings.chain[0].temperature
    return same and made.system_weight == settings.signature.system_weight


def _assumed(entry: Entry, settings: Settings) -> Scores | Why:
    """Of an older router's row: that this stack's classifier gave the scores, at the temperature it has."""
    if settings.named:
        return Why.OTHER_CLASSIFIER
    if len(settings.chain) > 1:
        return Why.OTHER_CHAIN
    if not entry.scores.keys() <= {settings.stack.base.name, *settings.stack.adapters}:
        return Why.OTHER_LABELS
    return Scores(entry.scores, settings.chain[0].threshold, assumed=True)


def _tempered(scores: Mapping[str, float], exponent: float) -> Mapping[str, float]:
    """Probabilities of the same logits at another temperature: their powers, made to sum to 1 again."""
    if exponent == 1:
        return scores
    logs = {name: math.log(value) if value > 0 else -math.inf for name, value in scores.items()}
    return probabilities(logs, logs, 1 / exponent)

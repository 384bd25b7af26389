"""From scores to one model: pure, no I/O, tested with tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a model answers; sent as `x-lora-select-reason`."""

    CLASSIFIED = "classified"
    NAMED = "named"
    BELOW_THRESHOLD = "below-threshold"
    KEPT = "kept"
    ONLY_CANDIDATE = "only-candidate"
    NO_CANDIDATE = "no-candidate"
    NO_TEXT = "no-text"
    CLASSIFIER_ERROR = "classifier-error"
    CLASSIFIER_TIMEOUT = "classifier-timeout"
    FALLBACK = "fallback"


@dataclass(frozen=True)
class Policy:
    """The most probable model answers; an adapter must reach `threshold` as well, or `unsure` answers, a virtual
    model, or where that is None the base."""

    base: str
    threshold: float
    unsure: str | None = None


@dataclass(frozen=True)
class Decision:
    """The model that answers, its probability (None where it was not scored), and why."""

    model: str
    score: float | None
    reason: Reason


def probabilities(
    logits: Mapping[str, float], candidates: Iterable[str], temperature: float = 1.0
) -> dict[str, float]:
    """Softmax over the candidates alone, most probable first: what is not served takes no share."""
    kept = {name: logits[name] / temperature for name in candidates if name in logits}
    top = max(kept.values(), default=0.0)
    weights = {name: math.exp(logit - top) for name, logit in kept.items()}
    total = sum(weights.values())
    ranked = sorted(weights, key=lambda name: (-weights[name], name))
    return {name: weights[name] / total for name in ranked}


def choose(scores: Mapping[str, float], policy: Policy, kept: bool = False) -> Decision:
    """Decide from probabilities that include the base's; `kept`: a conversation's earlier turns made them so.

    An adapter that tags or a key left alone need not beat the base, only reach the threshold: who asks by tags
    means the adapter.
    """
    adapters = [name for name in scores if name != policy.base]
    if not adapters:
        return Decision(policy.base, scores.get(policy.base), Reason.NO_CANDIDATE)
    if len(adapters) == 1 and scores[adapters[0]] >= policy.threshold:
        return Decision(adapters[0], scores[adapters[0]], Reason.ONLY_CANDIDATE)
    best = max(scores, key=lambda name: (scores[name], name == policy.base))
    if best != policy.base and scores[best] < policy.threshold:
        instead = policy.unsure or policy.base
        return Decision(instead, scores.get(instead), Reason.BELOW_THRESHOLD)
    return Decision(best, scores[best], Reason.KEPT if kept else Reason.CLASSIFIED)

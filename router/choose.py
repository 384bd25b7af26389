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
    NO_TEXT = "no-text"
    CLASSIFIER_ERROR = "classifier-error"
    CLASSIFIER_TIMEOUT = "classifier-timeout"


@dataclass(frozen=True)
class Policy:
    """The most probable model answers; an adapter must reach `threshold` as well, or the base answers."""

    base: str
    threshold: float


@dataclass(frozen=True)
class Decision:
    """The model that answers, its probability (None where nothing was scored), and why."""

    model: str
    score: float | None
    reason: Reason


def probabilities(logits: Mapping[str, float], candidates: Iterable[str]) -> dict[str, float]:
    """Softmax over the candidates alone, most probable first: what is not served takes no share."""
    kept = {name: logits[name] for name in candidates if name in logits}
    top = max(kept.values(), default=0.0)
    weights = {name: math.exp(logit - top) for name, logit in kept.items()}
    total = sum(weights.values())
    ranked = sorted(weights, key=lambda name: (-weights[name], name))
    return {name: weights[name] / total for name in ranked}


def choose(scores: Mapping[str, float], policy: Policy) -> Decision:
    """Decide from probabilities that include the base's."""
    best = max(scores, key=lambda name: (scores[name], name == policy.base), default=policy.base)
    if best != policy.base and scores[best] < policy.threshold:
        return Decision(policy.base, scores.get(policy.base), Reason.BELOW_THRESHOLD)
    return Decision(best, scores.get(best), Reason.CLASSIFIED)

"""`POST /route`: a decision with all that it was made from, by the stack's thresholds or by others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.classify.scorer import Judged
from router.conversation import weights
from router.decide import Grounds, Routed
from router.errors import BadRequest

FIELD, KEY = "lora_select", "threshold"


def asked(body: Mapping[str, Any], there: Mapping[str, float]) -> dict[str, float]:
    """By classifier, the thresholds that a body wants instead of those that are there; {} where it wants none.

    `"lora_select": {"threshold": 0.7}` is for every classifier, `{"threshold": {"nli": 0.7}}` for one. Raises
    BadRequest.
    """
    given = body.get(FIELD)
    if given is None:
        return {}
    if not isinstance(given, dict) or set(given) != {KEY}:
        raise BadRequest(f'"{FIELD}" must be {{"{KEY}": a number from 0 to 1}}', param=FIELD)
    wanted = given[KEY]
    thresholds: dict[str, Any] = wanted if isinstance(wanted, dict) else dict.fromkeys(there, wanted)
    if unknown := sorted(set(thresholds) - set(there)):
        known = ", ".join(there)
        raise BadRequest(f'unknown classifier "{unknown[0]}"; there are {known}', param=f"{FIELD}.{KEY}")
    if not all(_is_probability(one) for one in thresholds.values()):
        example = f'{{"{next(iter(there))}": 0.5}}'
        message = f'"{KEY}" must be a number from 0 to 1, or one by classifier: {example}'
        raise BadRequest(message, param=f"{FIELD}.{KEY}")
    return thresholds


def answer(routed: Routed, thresholds: Mapping[str, float], system_weight: float) -> dict[str, Any]:
    """The decision, and how each text was judged. `thresholds`: of every classifier, in the order in which they
    are asked; `system_weight`: how much a system prompt counts."""
    grounds = routed.grounds
    last = grounds.turns[-1] if grounds else None
    return {
        "model": routed.decision.model,
        "score": routed.decision.score,
        "reason": routed.decision.reason,
        "scores": routed.scores,
        "classify_ms": round(routed.classify_ms, 2),
        "cached": routed.cached,
        "threshold": last.threshold if last else None,
        "classifier": last.by if last else None,
        "thresholds": thresholds,
        "turns": _turns(grounds) if grounds else [],
        "system": _system(grounds, system_weight) if grounds else None,
    }


def _turns(grounds: Grounds) -> list[dict[str, Any]]:
    said = grounds.words.turns
    return [_judged(*one) for one in zip(said, weights(said), grounds.turns, strict=True)]


def _system(grounds: Grounds, weight: float) -> dict[str, Any] | None:
    return _judged(grounds.words.system, weight, grounds.system) if grounds.system else None


def _judged(text: str, weight: float, judged: Judged) -> dict[str, Any]:
    return {
        "text": text,
        "weight": round(weight, 4),
        "scores": judged.scores,
        "classifier": judged.by,
        "threshold": judged.threshold,
        "classify_ms": round(judged.ms, 2),
        "cached": judged.cached,
    }


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1

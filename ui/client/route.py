"""`POST /route`, the router's dry run: what it would decide about a text, and what it goes by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

from ui.client.connect import router_url

TIMEOUT_S = 30
TAGS = "x-lora-select-tags"
SPEAKER = re.compile(r"^(user|assistant|system):[ \t]*", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Judged:
    """One text of the request: how much it counts, its own scores, who gave them, and how long that took."""

    text: str
    weight: float
    scores: Mapping[str, float]
    classifier: str
    ms: float
    cached: bool


@dataclass(frozen=True)
class DryRun:
    """What the router would do. `classifier` and `threshold` are those that counted, None where nothing was
    judged; `thresholds` are all of them, in the order in which the classifiers are asked."""

    model: str
    reason: str
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    ms: float = 0.0
    cached: bool = False
    classifier: str | None = None
    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    turns: tuple[Judged, ...] = ()
    system: Judged | None = None


async def dry_run(
    client: openai.AsyncOpenAI,
    messages: list[dict[str, str]],
    tags: str = "",
    thresholds: Mapping[str, float] | None = None,
) -> DryRun:
    """What "auto" would do; `thresholds`: under these instead, by classifier.

    Raises openai.OpenAIError, and ValueError for an answer that is none.
    """
    body = {"messages": messages} | ({"lora_select": {"threshold": dict(thresholds)}} if thresholds else {})
    return await decided(client, body, {TAGS: tags.strip()} if tags.strip() else {})


async def decided(
    client: openai.AsyncOpenAI,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    within_s: float = TIMEOUT_S,
) -> DryRun:
    """The same of a whole request's body. Raises as `dry_run`."""
    router = client.with_options(base_url=router_url(client), timeout=within_s)
    return _read(await router.post("/route", body=body, cast_to=object, options={"headers": dict(headers or {})}))


def conversation(said: str) -> list[dict[str, str]]:
    """Messages from lines that begin with "user:", "assistant:" or "system:"; what stands before the first of them
    is the user's."""
    first, *rest = SPEAKER.split(said)
    spoken = [("user", first), *zip(rest[::2], rest[1::2], strict=True)]
    return [{"role": role.lower(), "content": text.strip()} for role, text in spoken if text.strip()]


def _read(reply: object) -> DryRun:
    match reply:
        case {"model": str(model), "reason": str(reason), **more}:
            return DryRun(
                model,
                reason,
                score=_number(more.get("score")),
                scores=_numbers(more.get("scores")),
                ms=_number(more.get("classify_ms")) or 0.0,
                cached=more.get("cached") is True,
                classifier=_word(more.get("classifier")),
                threshold=_number(more.get("threshold")),
                thresholds=_numbers(more.get("thresholds")),
                turns=tuple(_judged(turn) for turn in _list(more.get("turns")) if isinstance(turn, dict)),
                system=_judged(system) if isinstance(system := more.get("system"), dict) else None,
            )
    raise ValueError("no decision")


def _judged(given: Mapping[str, Any]) -> Judged:
    return Judged(
        text=_word(given.get("text")) or "",
        weight=_number(given.get("weight")) or 0.0,
        scores=_numbers(given.get("scores")),
        classifier=_word(given.get("classifier")) or "",
        ms=_number(given.get("classify_ms")) or 0.0,
        cached=given.get("cached") is True,
    )


def _list(given: object) -> list[Any]:
    return given if isinstance(given, list) else []


def _word(given: object) -> str | None:
    return given if isinstance(given, str) else None


def _number(given: object) -> float | None:
    return float(given) if isinstance(given, int | float) and math.isfinite(given) else None


def _numbers(given: object) -> dict[str, float]:
    pairs = given.items() if isinstance(given, dict) else ()
    return {str(name): number for name, value in pairs if (number := _number(value)) is not None}

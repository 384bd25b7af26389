"""What of a request speaks about its subject, and how the turns of a conversation are weighed: pure, no state.

Only the user's own words and the system prompt are read, never the assistant's, a tool's or a document's. Each
turn is judged alone, so that a new turn costs one classification and the others come from the cache.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import orjson

from router.choose import Decision, Policy, choose
from router.wording import substance

MAX_TURNS = 6
"""Older turns weigh next to nothing, and a long conversation must not cost a router without a cache too much."""

KEPT_CHARACTERS = 2000
"""Of a text's head and of its tail: no classifier reads more, and the cache holds what is read."""

LEAST = 0.01
"""No turn is without any weight, and none so sure that others could not outweigh it."""


@dataclass(frozen=True)
class Words:
    """The user's turns, oldest first, each clipped, MAX_TURNS newest ones; () when there is no text."""

    turns: tuple[str, ...]
    system: str = ""

    def digest(self) -> bytes:
        """16 bytes that stand for all of it."""
        return blake2b(orjson.dumps((self.system, *self.turns)), digest_size=16).digest()


@dataclass(frozen=True)
class Rules:
    """What `choose` goes by, and the share of the system prompt."""

    policy: Policy
    system_weight: float


@dataclass(frozen=True)
class Combined:
    """Probabilities, most probable first; `kept` when the earlier turns decided, not the last one."""

    scores: dict[str, float]
    kept: bool


def read(body: Mapping[str, Any]) -> Words:
    """From a request of any of the served kinds; never raises, whatever the body holds."""
    turns, system = _said(body)
    newest = islice((text for turn in reversed(turns) if (text := _clip(_text(turn)))), MAX_TURNS)
    above = [
        text for part in (body.get("system"), body.get("instructions"), *system) if part and (text := _text(part))
    ]
    return Words(tuple(newest)[::-1], _clip("\n".join(above)) if above else "")


def opening(body: Mapping[str, Any]) -> str:
    """The user's first words: the same as long as a conversation goes on."""
    return next((text for turn in _said(body)[0] if (text := _clip(_text(turn)))), "")


def _said(body: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """What the user and what the system says, not read yet."""
    messages, given = body.get("messages"), body.get("input")
    if isinstance(messages, list):
        return _conversation(messages)
    if isinstance(given, list) and any(isinstance(item, dict) for item in given):
        return _conversation(given)
    # A batch of prompts is answered by one model: the first speaks for all. Token ids say nothing here.
    texts = (_first_text(body.get(key)) for key in ("prompt", "input", "text"))
    return [next((text for text in texts if text), "")], []


def combine(
    words: Words, turns: Sequence[Mapping[str, float]], system: Mapping[str, float] | None, rules: Rules
) -> Combined:
    """The probabilities of the request from those of its turns and its system prompt.

    A turn replaces what was before as far as it has substance of its own: "and in Spain?" has little. Turns are
    averaged as log-probabilities (a product of experts): a switch takes a turn that is surer than those before.
    """
    last = dict(turns[-1]) if turns else {}
    if len(turns) == 1 and system is None:
        return Combined(_ranked(last), kept=False)  # the usual request, spared the arithmetic
    scores, before = last, dict[str, float]()
    if len(turns) > 1:
        scores = _average(turns, weights(words.turns), last)
        before = _average(turns[:-1], weights(words.turns[:-1]), last)
    if system is not None:
        share = rules.system_weight
        scores = {name: (1 - share) * p + share * system.get(name, 0.0) for name, p in scores.items()}
    ranked = _ranked(scores)
    return Combined(ranked, _kept(ranked, last, before, rules.policy))


def weights(turns: Sequence[str]) -> list[float]:
    """How much each turn counts in the decision, by its words; they sum to 1."""
    shares, left = list[float](), 1.0
    for text in reversed(turns):
        own = max(substance(text), LEAST)
        shares.append(own * left)
        left *= 1 - own
    return [share / sum(shares) for share in reversed(shares)]


def _average(
    turns: Sequence[Mapping[str, float]], shares: Sequence[float], names: Iterable[str]
) -> dict[str, float]:
    counted = list(zip(shares, turns, strict=True))
    return _normal(
        {name: math.exp(sum(share * _log(turn.get(name, 0.0)) for share, turn in counted)) for name in names}
    )


def _ranked(scores: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def conclude(
    words: Words, turns: Sequence[Mapping[str, float]], system: Mapping[str, float] | None, rules: Rules
) -> tuple[Decision, dict[str, float]]:
    """Who answers, and the probabilities that say so: `combine` and `choose` in one."""
    combined = combine(words, turns, system, rules)
    return choose(combined.scores, rules.policy, combined.kept), combined.scores


def _kept(
    scores: Mapping[str, float], last: Mapping[str, float], before: Mapping[str, float], policy: Policy
) -> bool:
    if not before:
        return False
    chosen = choose(scores, policy).model
    return chosen == choose(before, policy).model != choose(last, policy).model


def _normal(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _log(probability: float) -> float:
    return math.log(max(probability, LEAST))


def _conversation(messages: list[Any]) -> tuple[list[Any], list[Any]]:
    """What the user and what the system says, in a list of messages or in a Responses request's items."""
    user, system = [], []
    for message in messages:
        if isinstance(message, dict):
            role = message.get("role")
            if role == "user":
                user.append(message.get("content"))
            elif role in ("system", "developer"):
                system.append(message.get("content"))
    return user, system


def _text(content: object) -> str:
    """Of a string, or of a list's text parts: images and a tool's results beside them are no words of the user."""
    return content if isinstance(content, str) else "\n".join(_parts(content))


def _parts(content: object) -> Iterator[str]:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") in ("text", "input_text"):
            text = part.get("text")
            if isinstance(text, str):
                yield text


def _first_text(given: object) -> str:
    if isinstance(given, list):
        given = next((item for item in given if isinstance(item, str)), "")
    return given.strip() if isinstance(given, str) else ""


def _clip(text: str) -> str:
    """Head and tail of a long text, without the halves of characters that no tokenizer takes."""
    text = text.strip()
    if len(text) > 2 * KEPT_CHARACTERS:
        text = f"{text[:KEPT_CHARACTERS]}\n{text[-KEPT_CHARACTERS:]}"
    return text if text.isascii() else re.sub(r"[\ud800-\udfff]", "", text).strip()

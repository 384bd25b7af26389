"""Which adapter gave each token of an answer, and used each layer for it: asked together with the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai

from ui.client.answer import Answer, Settings, Turn, ask

EXPLAIN = {"x-lora-select-explain": "layers"}
FIELD = "lora_select"
VIRTUAL = "virtual"
NOTHING = "The answer came without a word about its adapters: a router of before cannot tell."
NONSENSE = "What the router told about the adapters cannot be read."
BROKEN = "Which adapter gave which token is told when an answer is complete, and this one is not."

Shares = Mapping[str, float]
"""Adapter to its part of 1."""


@dataclass(frozen=True)
class Token:
    """`adapter` took the largest `share` of the model's projections; None where that is not known. `layers` has
    the shares in each layer, and is empty where they were not told."""

    text: str
    adapter: str | None
    share: float
    layers: tuple[Shares, ...] = ()


@dataclass(frozen=True, eq=False)
class Explained:
    """An answer's tokens and those of its prompt. `adapters`: shares of all of them; `layers`: names, and the
    shares of the answer there."""

    adapters: Shares
    layers: tuple[tuple[str, Shares], ...]
    prompt: tuple[Token, ...]
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Watched:
    """An answer so far. When it is done, `explained`, or in `untold` a sentence for the reader: why not."""

    answer: Answer
    explained: Explained | None = None
    untold: str = ""


async def virtual_models(client: openai.AsyncOpenAI) -> tuple[str, ...]:
    """The models that use adapters per token, in the router's order. Raises openai.OpenAIError."""
    found = []
    for model in (await client.models.list()).data:
        about = getattr(model, FIELD, None)
        if isinstance(about, dict) and about.get("kind") == VIRTUAL:
            found.append(model.id)
    return tuple(found)


async def watch(client: openai.AsyncOpenAI, question: str, settings: Settings) -> AsyncIterator[Watched]:
    """One question's answer as it grows, and in the end its explanation. Never raises."""
    told: list[Any] = []

    def hear(chunk: Any) -> None:
        if found := getattr(chunk, FIELD, None):
            told.append(found)

    async for answer in ask(client, (Turn(question),), settings, EXPLAIN, hear):
        if not answer.done:
            yield Watched(answer)
        elif answer.error:
            yield Watched(answer, untold=BROKEN if answer.text else "")
        else:
            yield _watched(answer, told[-1] if told else None)


def _watched(answer: Answer, told: Any) -> Watched:
    if told is None:
        return Watched(answer, untold=NOTHING)
    try:
        if "error" in told:
            return Watched(answer, untold=f"Nobody can say which adapter gave which token: {told['error']}.")
        return Watched(answer, explained=read(told))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return Watched(answer, untold=NONSENSE)


def read(told: Mapping[str, Any]) -> Explained:
    """The router's field, of its first choice.

    Raises KeyError, IndexError, TypeError, ValueError or AttributeError where it is none.
    """
    choice = told["choices"][0]
    return Explained(
        adapters=_shares(choice["adapters"]),
        layers=tuple((str(one["layer"]), _shares(one["adapters"])) for one in choice.get("layers", ())),
        prompt=tuple(_token(one) for one in choice["prompt"]),
        tokens=tuple(_token(one) for one in choice["tokens"]),
    )


def _token(told: Mapping[str, Any]) -> Token:
    layers = tuple(_shares(one) for one in told.get("layers") or ())
    adapter = told["adapter"]
    return Token(str(told["text"]), None if adapter is None else str(adapter), float(told["share"] or 0), layers)


def _shares(told: Mapping[str, Any]) -> Shares:
    return {str(adapter): float(share) for adapter, share in told.items()}

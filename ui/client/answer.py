"""A conversation in, a growing answer and its decision out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

from adapters import AUTO
from ui.client.connect import explain, router_url
from ui.client.decision import Decision, read_decision

SCORES_TIMEOUT_S = 5
REDRAW_S = 0.05
"""The page redraws the whole answer each time; twenty times a second looks like streaming."""


@dataclass(frozen=True)
class Answer:
    """What is known of an answer so far; `error` is a sentence for the reader. Nothing follows `done`."""

    text: str = ""
    decision: Decision | None = None
    finish_reason: str | None = None
    error: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Turn:
    """One question and what came back."""

    question: str
    answer: Answer = Answer()


@dataclass(frozen=True)
class Settings:
    """How to ask: a model's name or "auto", and the sampling."""

    model: str = AUTO
    max_tokens: int = 200
    temperature: float = 0.0


async def ask(client: openai.AsyncOpenAI, turns: tuple[Turn, ...], settings: Settings) -> AsyncIterator[Answer]:
    """The answer to the last turn as it grows. Whatever fails is told in `Answer.error`, never raised."""
    request = _request(turns, settings)
    answer = Answer()
    try:
        async for answer in _stream(client, request):
            yield answer
        if answer.finish_reason is None:
            answer = replace(answer, error="The answer broke off: the stream ended before the model was done.")
    except openai.APIStatusError as error:
        decision = read_decision(error.response.headers)
        answer = replace(answer, decision=decision, error=explain(error, router_url(client)))
    except (openai.OpenAIError, ValueError) as error:
        started = answer.decision is not None
        answer = replace(answer, error=explain(error, router_url(client), started))
    yield answer
    if settings.model == AUTO and answer.decision:
        scores = await _scores(client, request)
        answer = replace(answer, decision=replace(answer.decision, scores=scores))
    yield replace(answer, done=True)


def _request(turns: tuple[Turn, ...], settings: Settings) -> dict[str, Any]:
    messages: list[ChatCompletionMessageParam] = []
    for turn in turns[:-1]:
        # A question that got no text leaves no trace: many chat templates insist on alternating roles.
        if turn.answer.text:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer.text})
    messages.append({"role": "user", "content": turns[-1].question})
    return {
        "model": settings.model,
        "messages": messages,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
    }


async def _stream(client: openai.AsyncOpenAI, request: dict[str, Any]) -> AsyncIterator[Answer]:
    create = client.chat.completions.with_streaming_response.create
    async with create(**request, stream=True) as response:
        answer = Answer(decision=read_decision(response.headers))
        yield answer
        drawn = 0.0
        async for chunk in await response.parse():
            for choice in chunk.choices:
                text = answer.text + (choice.delta.content or "")
                answer = replace(answer, text=text, finish_reason=choice.finish_reason or answer.finish_reason)
            if time.monotonic() - drawn > REDRAW_S or answer.finish_reason:
                drawn = time.monotonic()
                yield answer


async def _scores(client: openai.AsyncOpenAI, request: dict[str, Any]) -> dict[str, float]:
    """All candidates' scores, from the router's memory of the decision; {} when it can't tell."""
    router = client.with_options(base_url=router_url(client), timeout=SCORES_TIMEOUT_S)
    try:
        reply = await router.post("/route", body=request, cast_to=object)
    except (openai.OpenAIError, ValueError):
        return {}
    scores = reply.get("scores") if isinstance(reply, dict) else None
    if not isinstance(scores, dict):
        return {}
    return {str(name): float(score) for name, score in scores.items() if isinstance(score, int | float)}

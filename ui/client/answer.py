"""A conversation in, a growing answer and its decision out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

from adapters import AUTO
from ui.client.connect import explain, router_url
from ui.client.decision import Decision, read_decision
from ui.client.route import decided

SCORES_WITHIN_S = 5.0
"""An answer that is there waits no longer for the scores of those that did not give it."""
REDRAW_S = 0.05
"""The page redraws an answer as it grows; twenty times a second looks like streaming."""


@dataclass(frozen=True)
class Answer:
    """What is known of an answer so far. `error` and `note` are sentences for the reader: what failed, and who
    ended it early. Nothing follows `done`."""

    text: str = ""
    decision: Decision | None = None
    finish_reason: str | None = None
    error: str | None = None
    note: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Turn:
    """One question and what came back."""

    question: str
    answer: Answer = Answer()


Turns = tuple[Turn, ...]


@dataclass(frozen=True)
class Settings:
    """How to ask: a model's name or "auto", tags that narrow what "auto" may choose, and the sampling. What is
    None or empty is left to the stack."""

    model: str = AUTO
    max_tokens: int = 200
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | str | None = None
    stop: tuple[str, ...] = ()
    system: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


async def ask(
    client: openai.AsyncOpenAI,
    turns: Turns,
    settings: Settings,
    headers: Mapping[str, str] | None = None,
    hear: Callable[[Any], None] = lambda _: None,
) -> AsyncIterator[Answer]:
    """The answer to the last turn as it grows, no oftener than a reader can see. Whatever fails is told in
    `Answer.error`, never raised. `headers` go along with the request, `hear` gets every chunk of the stream.
    """
    latest, new = Answer(), asyncio.Event()

    async def read() -> None:
        nonlocal latest
        async for answer in grow(client, turns, settings, headers, hear):
            latest = answer
            new.set()

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: new.set())
    try:
        shown: Answer | None = None
        while shown is not latest or not (shown.done or reader.done()):
            await new.wait()
            new.clear()
            shown = latest
            yield shown
            await asyncio.sleep(REDRAW_S)
        await reader
    finally:
        reader.cancel()


async def grow(
    client: openai.AsyncOpenAI,
    turns: Turns,
    settings: Settings,
    headers: Mapping[str, str] | None = None,
    hear: Callable[[Any], None] = lambda _: None,
) -> AsyncIterator[Answer]:
    """The answer to the last turn after each of its pieces; what fails is told in `Answer.error`, never raised."""
    request = request_of(turns, settings)
    answer = Answer()
    async for answer in pieces(client, request, headers, hear):
        yield answer
    if settings.model == AUTO and answer.decision:
        with suppress(openai.OpenAIError, ValueError):  # from the router's memory of the decision
            scores = (await decided(client, request, within_s=SCORES_WITHIN_S)).scores
            answer = replace(answer, decision=replace(answer.decision, scores=scores))
    yield replace(answer, done=True)


async def pieces(
    client: openai.AsyncOpenAI,
    request: dict[str, Any],
    headers: Mapping[str, str] | None = None,
    hear: Callable[[Any], None] = lambda _: None,
) -> AsyncIterator[Answer]:
    """The answer to a request's body after each of its pieces, and at its end, which is not called `done` here.

    What fails is told in `Answer.error`, never raised. `headers` and `hear` as in `ask`.
    """
    answer = Answer()
    try:
        async for answer in _stream(client, request, headers, hear):
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


def request_of(turns: Turns, settings: Settings) -> dict[str, Any]:
    """The body of the request that asks the last turn."""
    messages: list[ChatCompletionMessageParam] = []
    if settings.system.strip():
        messages.append({"role": "system", "content": settings.system})
    for turn in remembered(turns[:-1]):
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer.text})
    messages.append({"role": "user", "content": turns[-1].question})
    chosen = {
        "top_p": settings.top_p,
        "seed": settings.seed,
        "stop": list(settings.stop) or None,
        "metadata": dict(settings.tags) or None,
    }
    return {
        "model": settings.model,
        "messages": messages,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        **{name: value for name, value in chosen.items() if value is not None},
    }


def remembered(turns: Turns) -> Turns:
    """Those that the next request tells of: one that got no text leaves no trace, because many chat templates
    insist on alternating roles."""
    return tuple(turn for turn in turns if turn.answer.text)


async def _stream(
    client: openai.AsyncOpenAI,
    request: dict[str, Any],
    headers: Mapping[str, str] | None,
    hear: Callable[[Any], None],
) -> AsyncIterator[Answer]:
    create = client.chat.completions.with_streaming_response.create
    async with create(**request, stream=True, extra_headers=headers) as response:
        answer = Answer(decision=read_decision(response.headers))
        yield answer
        async for chunk in await response.parse():
            hear(chunk)
            for choice in chunk.choices:
                text = answer.text + (choice.delta.content or "")
                answer = replace(answer, text=text, finish_reason=choice.finish_reason or answer.finish_reason)
            yield answer

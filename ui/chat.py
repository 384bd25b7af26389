"""Ask the router through the OpenAI SDK: a conversation in, a growing answer and its decision out."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import openai
from openai.types.chat import ChatCompletionMessageParam

from adapters import AUTO

HEADER = "x-lora-select-"
KEY = "LORA_SELECT_API_KEY"
"""Environment variable with the page's key, where the router wants one; it never reaches the browser."""

SCORES_TIMEOUT_S = 5
REDRAW_S = 0.05
"""The page redraws the whole answer each time; twenty times a second looks like streaming."""


@dataclass(frozen=True)
class Decision:
    """Which model answered, and why. `score` is None when the client named the model. `disclaimer`: what its stack
    tells with every answer of it."""

    model: str
    reason: str
    score: float | None = None
    classify_ms: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    disclaimer: str = ""


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


def connect(url: str) -> openai.AsyncOpenAI:
    """A client for the router at `url` (without /v1). It asks once: a retry would hide what went wrong."""
    timeout = openai.Timeout(600, connect=5)
    key = os.environ.get(KEY, "none")
    return openai.AsyncOpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=key, timeout=timeout, max_retries=0)


def router_url(client: openai.AsyncOpenAI) -> str:
    """The router's own root, where /route lives."""
    return str(client.base_url).rstrip("/").removesuffix("/v1")


async def models(client: openai.AsyncOpenAI) -> list[tuple[str, str]]:
    """(label, name) of every model that the router offers, in its order. Raises openai.OpenAIError."""
    listed = (await client.models.list()).data
    bases = {getattr(model, "parent", None) for model in listed}
    return [(f"{model.id} (base)" if model.id in bases else model.id, model.id) for model in listed]


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


def read_decision(headers: Mapping[str, str]) -> Decision | None:
    """The router's headers as a Decision; None when it never got to decide."""
    model = headers.get(f"{HEADER}adapter")
    if not model:
        return None
    return Decision(
        model=model,
        reason=headers.get(f"{HEADER}reason", ""),
        score=_number(headers.get(f"{HEADER}score")),
        classify_ms=_number(headers.get(f"{HEADER}classify-ms")),
        disclaimer=unquote(headers.get(f"{HEADER}disclaimer", "")),
    )


def explain(error: Exception, url: str, started: bool = False) -> str:
    """One sentence for the reader: what failed, and what to look at."""
    match error:
        case openai.APITimeoutError():
            sentence = f"The router at {url} took too long to answer."
        case openai.APIConnectionError() if started:
            sentence = "The answer broke off: the connection to the router was lost."
        case openai.APIConnectionError():
            sentence = f"The router at {url} does not answer. Is it running?"
        case openai.APIStatusError(status_code=503):
            sentence = f"The model server is not ready (503): {_message(error)}"
        case openai.APIStatusError():
            verb = "failed" if error.status_code >= 500 else "was refused"
            sentence = f"The request {verb} ({error.status_code}): {_message(error)}"
        case openai.APIError():
            sentence = f"The answer broke off: {_message(error)}"
        case _:
            sentence = f"The router at {url} sent something that is not an answer: {error}"
    return sentence


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


def _message(error: openai.APIError) -> str:
    said = error.body.get("message") if isinstance(error.body, dict) else None
    return str(said or error.message).strip()


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None

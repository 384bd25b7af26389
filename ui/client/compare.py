"""One prompt to many models at once: each answer as it grows, with its times as they are seen from here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from ui.client.answer import pieces
from ui.client.decision import Decision
from ui.client.route import dry_run

AT_ONCE = 16
"""More models than that wait for each other: a router or an engine has its own bounds."""
ABANDONED_S = 120.0
"""Answers that nobody looks at are ended after this long."""
PACE_S, CHARACTERS_A_SECOND = 0.15, 400_000
"""All columns are drawn as a whole, so long ones are drawn less often."""
MOST_KEPT = 100
"""Comparisons in all: one for each browser tab, and the oldest goes."""
STOPPED = "Stopped by you."
REPLACED = "Stopped: another comparison took its place."
LEFT = "Stopped, because for two minutes nobody had this page open."
FAULT = "The page failed."


@dataclass(frozen=True)
class Column:
    """What is known of one model's answer. Times are in seconds since it was asked: until its first token came,
    and until its newest. `counted`: `tokens` are the stream's events, because it has not told its usage (yet).
    `error` and `note` are sentences for the reader: what failed, and who ended it early."""

    asked: bool = False
    text: str = ""
    decision: Decision | None = None
    first_s: float | None = None
    newest_s: float = 0.0
    tokens: int = 0
    counted: bool = True
    finish_reason: str | None = None
    error: str | None = None
    note: str | None = None
    done: bool = False

    @property
    def rate(self) -> float | None:
        """Tokens per second after the first one."""
        took = self.newest_s - (self.first_s or 0.0)
        return (self.tokens - 1) / took if self.tokens > 1 and took > 0 else None


class Comparison:
    """The answers to one prompt, which grow until `running` is over; `scores` are the router's probabilities."""

    def __init__(self, client: openai.AsyncOpenAI, names: Sequence[str], request: Mapping[str, Any]) -> None:
        self.columns = {name: Column() for name in names}
        self.scores: Mapping[str, float] | None = None  # not told, or not yet
        self.prompt = str(request["messages"][-1]["content"])
        self._followers = 0
        self._left: asyncio.TimerHandle | None = None  # runs since the last of them went
        self._task = asyncio.create_task(self._run(client, request))

    @property
    def running(self) -> bool:
        """Something may still come."""
        return not (self._task.done() or self._task.cancelling())

    def stop(self, note: str = STOPPED) -> None:
        """End what is under way; what was said stays, and the router sees its client leave."""
        self._task.cancel()
        self._end(note=note)

    async def follow(self) -> AsyncIterator[None]:
        """At a calm pace, until nothing comes any more: look at it now."""
        self._followers += 1
        if self._left:
            self._left.cancel()
        try:
            while self.running:
                yield
                size = sum(len(column.text) for column in self.columns.values())
                await asyncio.wait([self._task], timeout=PACE_S + size / CHARACTERS_A_SECOND)
            yield
        finally:
            self._followers -= 1
            if not self._followers and self.running:
                self._left = asyncio.get_running_loop().call_later(ABANDONED_S, self.stop, LEFT)

    def _end(self, **told: str) -> None:
        """Of all columns that are not done."""
        for name, column in self.columns.items():
            if not column.done:
                self.columns[name] = replace(column, **told, done=True)  # type: ignore[arg-type]

    async def _run(self, client: openai.AsyncOpenAI, request: Mapping[str, Any]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._judge(client, request))
                for name in self.columns:
                    group.create_task(self._fill(client, dict(request) | {"model": name}, gate))
        finally:
            self._end(error=FAULT)  # nobody must wait for what a fault of ours has ended

    async def _fill(self, client: openai.AsyncOpenAI, request: dict[str, Any], gate: asyncio.Semaphore) -> None:
        async with gate:
            async for column in answer(client, request):
                if self.columns[request["model"]].done:  # stopped; this task is told a moment later
                    return
                self.columns[request["model"]] = column

    async def _judge(self, client: openai.AsyncOpenAI, request: Mapping[str, Any]) -> None:
        with suppress(openai.OpenAIError, ValueError):  # the columns tell what is wrong with the router
            self.scores = (await dry_run(client, request["messages"])).scores


class Comparisons:
    """The newest of each browser tab, by an id that nobody can guess: whoever reloads the page finds it."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self._all: dict[str, Comparison] = {}

    def start(self, key: str, names: Sequence[str], request: Mapping[str, Any]) -> Comparison:
        """Ask them all; what this tab had before is ended and gone."""
        self._forget(key)
        while len(self._all) >= MOST_KEPT:
            self._forget(min(self._all, key=lambda one: self._all[one].running))  # the oldest of those that ended
        self._all[key] = Comparison(self._client, names, request)
        return self._all[key]

    def of(self, key: str) -> Comparison | None:
        """The one that this tab has."""
        return self._all.get(key)

    def _forget(self, key: str) -> None:
        if before := self._all.pop(key, None):
            before.stop(REPLACED)


async def answer(client: openai.AsyncOpenAI, request: dict[str, Any]) -> AsyncIterator[Column]:
    """One model's answer as it grows. Whatever fails is told in `Column.error`, never raised."""
    column, began = Column(asked=True), time.perf_counter()

    def hear(chunk: ChatCompletionChunk) -> None:
        nonlocal column
        column = _timed(column, chunk, time.perf_counter() - began)

    yield column
    async for said in pieces(client, request | {"stream_options": {"include_usage": True}}, hear=hear):
        column = replace(
            column, text=said.text, decision=said.decision, finish_reason=said.finish_reason, error=said.error
        )
        yield column
    yield replace(column, done=True)


def _timed(column: Column, chunk: ChatCompletionChunk, at_s: float) -> Column:
    if chunk.usage:
        column = replace(column, tokens=chunk.usage.completion_tokens, counted=False)
    for choice in chunk.choices:
        if choice.delta.content:
            first = at_s if column.first_s is None else column.first_s
            tokens = column.tokens + 1 if column.counted else column.tokens
            column = replace(column, first_s=first, newest_s=at_s, tokens=tokens)
    return column

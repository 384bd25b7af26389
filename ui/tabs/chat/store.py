"""Conversations on this side: an answer goes on for a while when nobody looks, and whoever comes back finds it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import openai

from ui.client.answer import Answer, Settings, Turn, Turns, grow
from ui.tabs.chat.kept import Kept

MAX_CONVERSATIONS = 500
MAX_CHARACTERS = 30_000_000
MAX_AGE_S = 3600.0
"""Of conversations in which nothing is being answered; browsers have copies of their own."""
ABANDONED_S = 120.0
"""An answer that nobody looks at is ended after this long, so that no model writes for a closed browser."""
TICK_S = 1.0
"""Whoever follows an answer hears from it this often, and so does Gradio, which only then sees a browser gone."""
STOPPED = "Stopped by you."
LEFT = "Stopped, because for two minutes nobody had this page open."
LOST = "The page's server was started anew, so this answer broke off here."


@dataclass(eq=False)
class Conversation:
    """What was said so far; the last answer may still be growing in `task`."""

    id: str
    turns: Turns
    task: asyncio.Task[None] | None = None
    heard: float = field(default_factory=time.monotonic)
    """When there last was something new, or somebody looked."""
    followers: list[str] = field(default_factory=list)
    """Who looks at it grow: page loads, by their ids."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.TimerHandle | None = None
    """Runs since the last of them went."""

    @property
    def silent_s(self) -> float:
        """How long nothing new came, while something is awaited."""
        return time.monotonic() - self.heard if self.task else 0.0

    def update(self, turns: Turns) -> None:
        """Put other turns in place, and tell whoever follows."""
        self.turns, self.heard = turns, time.monotonic()
        self.changed.set()
        self.changed = asyncio.Event()


class Store:
    """The conversations of all browsers, by ids that nobody can guess; bounded in number, length and age.

    All of it runs on one event loop. Those that are being answered are never dropped: their number is the router's
    to limit.
    """

    def __init__(self, client: openai.AsyncOpenAI, abandoned_s: float = ABANDONED_S) -> None:
        self._client, self._abandoned_s = client, abandoned_s
        self._all: dict[str, Conversation] = {}

    def open(self, kept: Kept) -> Conversation:
        """The conversation of that id: as it is known here, or else as the browser has kept it."""
        conversation = self._all.pop(kept.id, None) or Conversation(kept.id, _broken_off(kept.turns))
        self._prune()
        self._all[kept.id] = conversation  # last: the dictionary is ordered by use
        return conversation

    def answer(self, conversation: Conversation, turns: Turns, settings: Settings) -> None:
        """Let the last of `turns`, which become the conversation's, be answered; what was under way is stopped."""
        self.stop(conversation)
        conversation.update(turns)
        conversation.task = asyncio.create_task(self._answer(conversation, settings))

    def stop(self, conversation: Conversation, note: str = STOPPED) -> None:
        """End the answer under way, if there is one: what it said stays, and the router sees its client leave."""
        if task := conversation.task:
            conversation.task = None
            task.cancel()
            _grow(conversation, replace(conversation.turns[-1].answer, note=note, done=True))

    def leave(self, conversation: Conversation, who: str) -> None:
        """Somebody starts another conversation: end the answer in this one, unless others look at it."""
        if all(follower == who for follower in conversation.followers):
            self.stop(conversation)

    async def follow(self, conversation: Conversation, who: str) -> AsyncGenerator[Turns, None]:
        """Its turns now, at each change and at each tick, until nothing is being answered in it."""
        conversation.followers.append(who)
        if conversation.left:
            conversation.left.cancel()
        try:
            while True:
                changed, task, drawn = conversation.changed, conversation.task, time.monotonic()
                yield conversation.turns
                if not task:
                    return
                try:
                    async with asyncio.timeout(TICK_S):
                        await changed.wait()
                except TimeoutError:
                    continue
                if conversation.task:
                    await asyncio.sleep(max(0.0, drawn + pace_s(conversation.turns) - time.monotonic()))
        finally:
            conversation.followers.remove(who)
            conversation.heard = conversation.heard if conversation.task else time.monotonic()
            asyncio.get_running_loop().call_later(MAX_AGE_S + TICK_S, self._prune)
            if not conversation.followers and conversation.task:
                loop = asyncio.get_running_loop()
                conversation.left = loop.call_later(self._abandoned_s, self.stop, conversation, LEFT)

    async def _answer(self, conversation: Conversation, settings: Settings) -> None:
        task = asyncio.current_task()
        try:
            async for answer in grow(self._client, conversation.turns, settings):
                if conversation.task is not task:
                    return
                if answer.done:
                    conversation.task = None
                _grow(conversation, answer)
        finally:
            if conversation.task is task:  # a fault of ours: nobody must wait for it
                conversation.task = None
                _grow(conversation, replace(conversation.turns[-1].answer, error="The page failed.", done=True))

    def _prune(self) -> None:
        idle = [one for one in self._all.values() if not one.task and not one.followers]  # oldest first
        sizes = {one.id: _size(one) for one in self._all.values()}
        total = sum(sizes.values())
        for one in idle:
            old = time.monotonic() - one.heard > MAX_AGE_S
            if not old and len(self._all) < MAX_CONVERSATIONS and total < MAX_CHARACTERS:
                continue
            del self._all[one.id]
            total -= sizes[one.id]


def pace_s(turns: Turns) -> float:
    """Seconds between two drawings: a long answer is drawn as a whole each time, so it is drawn less often."""
    return 0.05 + len(turns[-1].answer.text) / 200_000


def _grow(conversation: Conversation, answer: Answer) -> None:
    *before, last = conversation.turns
    conversation.update((*before, replace(last, answer=answer)))


def _broken_off(turns: Turns) -> Turns:
    """A copy whose last answer was still growing when its server went away."""
    if not turns or turns[-1].answer.done:
        return turns
    return (*turns[:-1], Turn(turns[-1].question, replace(turns[-1].answer, note=LOST, done=True)))


def _size(conversation: Conversation) -> int:
    return sum(len(turn.question) + len(turn.answer.text) for turn in conversation.turns)

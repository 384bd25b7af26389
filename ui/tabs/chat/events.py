"""What happens when a reader asks, stops, tries again, edits, leaves or comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui.client.answer import Turn
from ui.tabs.chat.controls import settings
from ui.tabs.chat.kept import read
from ui.tabs.chat.screen import Screen, html_part, typed
from ui.tabs.chat.store import Conversation, Store

TALK = "ls-talk"
Shown = tuple[list[dict[str, Any]], dict[str, Any], Any, Any]
"""What one step changes: the conversation on the screen, the browser's copy, its turns, the question box."""


class Events:
    """The handlers of the chat. Each first changes what is on this side, then shows that until no answer grows."""

    def __init__(self, store: Store) -> None:
        self._store, self._html = store, html_part()

    async def ask(
        self, event: gr.EventData, request: gr.Request, question: str, kept: Any, tags: Any, *controls: Any
    ) -> AsyncIterator[Shown]:
        """One question more, typed or picked from the examples."""
        picked = event.target is not None and event.target.elem_id == TALK
        asked = (event.value["text"] if picked else question).strip()
        conversation = self._store.open(read(kept))
        now = bool(asked) and conversation.task is None  # else it stays in its box
        if now:
            self._store.answer(conversation, (*conversation.turns, Turn(asked)), settings(tags, *controls))
        # Shown in any case: where nothing is, Gradio empties what a listener has as outputs.
        async for shown in self._stream(conversation, request, "" if now else None):
            yield shown

    async def retry(self, request: gr.Request, kept: Any, tags: Any, *controls: Any) -> AsyncIterator[Shown]:
        """The last question once more."""
        conversation = self._store.open(read(kept))
        if conversation.turns and conversation.task is None:
            *before, last = conversation.turns
            self._store.answer(conversation, (*before, Turn(last.question)), settings(tags, *controls))
        async for shown in self._stream(conversation, request):
            yield shown

    async def edit(
        self, event: gr.EditData, request: gr.Request, kept: Any, tags: Any, *controls: Any
    ) -> AsyncIterator[Shown]:
        """An earlier question in other words: the conversation goes on from there, what followed is gone."""
        conversation = self._store.open(read(kept))
        place = event.index // 2  # each turn is two messages
        asked = typed(event.value)
        if asked and place < len(conversation.turns):
            turns = (*conversation.turns[:place], Turn(asked))
            self._store.answer(conversation, turns, settings(tags, *controls))
        async for shown in self._stream(conversation, request):
            yield shown

    async def show(self, request: gr.Request, sent: Any) -> AsyncIterator[Shown]:
        """A conversation that the browser names: after a reload, from its earlier ones, or a new one."""
        kept = read(sent)
        async for shown in self._stream(self._store.open(kept), request, kept.draft):
            yield shown

    async def stop(self, kept: Any) -> None:
        """Enough: what was said stays."""
        self._store.stop(self._store.open(read(kept)))

    async def leave(self, request: gr.Request, kept: Any) -> None:
        """Another conversation will take the place of this one."""
        self._store.leave(self._store.open(read(kept)), request.session_hash or "")

    async def offer(self, listed: Any) -> Any:
        """The browser's earlier conversations, as it lists them: [[title, id], ...]."""
        return gr.Radio([(str(title), str(id)) for title, id in listed or ()], value=None)

    async def _stream(
        self, conversation: Conversation, request: gr.Request, draft: str | None = None
    ) -> AsyncIterator[Shown]:
        """The conversation until no answer grows in it. The box shall hold `draft`; None leaves it as it is."""
        screen, was = Screen(conversation.id, self._html), None
        async for turns in self._store.follow(conversation, request.session_hash or ""):
            running = conversation.task is not None
            new = running is not was
            box = _box(running, draft) if new else gr.skip()
            yield *screen.draw(turns, conversation.silent_s), turns if new else gr.skip(), box
            was, draft = running, None


def _box(running: bool, draft: str | None) -> Any:
    value = {} if draft is None else {"value": draft}
    return gr.Textbox(submit_btn=not running, stop_btn=running, **value)

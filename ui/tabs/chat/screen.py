"""A conversation as Gradio's chat shows it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape, unescape
from itertools import chain
from typing import Any

import gradio as gr

from ui.client.answer import Turn, Turns, remembered
from ui.parts.badge import below
from ui.tabs.chat.kept import written

Html = Callable[[str], dict[str, Any]]


class Screen:
    """What one stream of a conversation shows. What was said is made once; only what still grows is made anew."""

    def __init__(self, id: str, html: Html) -> None:
        self._id, self._html = id, html
        self._turns: Turns = ()
        self._messages: list[list[dict[str, Any]]] = []
        self._kept: list[dict[str, Any]] = []

    def draw(self, turns: Turns, silent_s: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The chat's messages, and the copy that the browser keeps."""
        same = 0
        while (
            same < min(len(turns), len(self._turns))
            and turns[same] is self._turns[same]
            and turns[same].answer.done
        ):
            same += 1
        fresh = range(same, len(turns))
        self._messages[same:] = [
            messages(turns[place], _before(turns[:place]), silent_s, self._html) for place in fresh
        ]
        self._kept[same:] = [written(turns[place]) for place in fresh]
        self._turns = turns
        return list(chain.from_iterable(self._messages)), {"id": self._id, "turns": list(self._kept)}


def messages(turn: Turn, before: str | None, silent_s: float, html: Html) -> list[dict[str, Any]]:
    """A question and what came back. Text is escaped: the chat would run it as HTML."""
    answer = turn.answer
    # Chat templates often leave the space before an answer to the model.
    said = [_text(answer.text.lstrip())] if answer.text.strip() else []
    return [
        {"role": "user", "content": [_text(turn.question)]},
        {"role": "assistant", "content": [*said, html(below(answer, before, silent_s))]},
    ]


def typed(shown: str) -> str:
    """What a reader made of a question that the chat let him edit, as he meant it."""
    return unescape(shown).strip()


def _before(turns: Turns) -> str | None:
    """The model whose answer the conversation went on from."""
    said = remembered(turns)
    decision = said[-1].answer.decision if said else None
    return decision.model if decision else None


def _text(raw: str) -> dict[str, str]:
    return {"type": "text", "text": escape(raw, quote=False)}


def html_part() -> Html:
    """A maker of HTML parts of messages. Not to be called in a listener: components are only half made there."""
    props: dict[str, Any] = gr.HTML("", render=False, js_on_load=None, apply_default_css=False).get_config()

    def part(value: str) -> dict[str, Any]:
        config = {**props, "value": value}
        return {"type": "component", "component": "html", "value": value, "props": config, "constructor_args": {}}

    return part

"""Feedback: what people corrected, and how often each adapter was right, for whoever has the admin key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr
import openai

from ui.client.admin import AdminError
from ui.client.feedback import judged
from ui.parts import unlock
from ui.parts.html import notice
from ui.parts.judged import overview, table
from ui.shared import HIDDEN, Page

MOST_ROWS = 200
LOCKED = "What people said of answers, and which adapter would have been right: it needs the stack's admin key."
ALL = f"The {MOST_ROWS} newest are shown."


def create(page: Page) -> None:
    """The field for the key; behind it the table, read when it is unlocked and at a click."""
    intro = gr.HTML(notice(LOCKED, error=False), elem_id="ls-feedback-intro", js_on_load=None)
    unlock.create(page)
    with gr.Column(visible=False, elem_id="ls-feedback") as whole:
        again = gr.Button("Read again", size="sm", scale=0, min_width=96, elem_id="ls-feedback-again")
        problem = gr.HTML(visible=False, elem_id="ls-feedback-problem", js_on_load=None, apply_default_css=False)
        shares = gr.HTML(elem_id="ls-feedback-shares", js_on_load=None, apply_default_css=False)
        said = gr.HTML(elem_id="ls-feedback-said", js_on_load=None, apply_default_css=False)
    read = reading(page.client)
    shown = [intro, whole, problem, shares, said]
    page.admin_key.change(read, page.admin_key, shown, **HIDDEN)
    again.click(read, page.admin_key, shown, **HIDDEN)


def reading(client: openai.AsyncOpenAI) -> Callable[[str], Awaitable[tuple[Any, ...]]]:
    """The handler that asks for what people said; what is on the page stays where the router does not tell."""

    async def read(key: str) -> tuple[Any, ...]:
        if not key:
            return gr.HTML(visible=True), gr.Column(visible=False), gr.HTML(visible=False), "", ""
        try:
            rows = await judged(client, key, MOST_ROWS)
        except AdminError as error:
            sentence = gr.HTML(notice(str(error), error=True), visible=True)
            return gr.HTML(visible=False), gr.Column(visible=True), sentence, gr.skip(), gr.skip()
        more = notice(ALL, error=False) if len(rows) == MOST_ROWS else ""
        return (
            gr.HTML(visible=False),
            gr.Column(visible=True),
            gr.HTML(visible=False),
            overview(rows),
            table(rows) + more,
        )

    return read

"""The admin key: typed once, in whichever tab, and known to all of them until it is locked again."""

from __future__ import annotations

from typing import Any

import gradio as gr
import openai

from ui.client.admin import AdminError, check
from ui.parts.html import notice
from ui.shared import HIDDEN, Page

UNLOCKED = "Unlocked with the admin key, in all tabs, until this page is reloaded."


def create(page: Page, visible: bool = True) -> gr.Column:
    """A field for the key where there is none yet, or else how to forget it; a tab may hide it as a whole.

    What is typed goes into `page.admin_key`, on this side, once the router has taken it; tabs listen to its
    `change`.
    """
    with gr.Column(visible=visible, elem_classes="ls-unlock") as whole:
        with gr.Row(elem_classes="ls-unlock-locked") as locked:
            typed = gr.Textbox(
                type="password",
                label="Admin key",
                placeholder="Admin key",
                show_label=False,
                container=False,
                max_lines=1,
                scale=1,
                min_width=160,
                html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False),
            )
            button = gr.Button("Unlock", scale=0, min_width=96)
        with gr.Row(visible=False, elem_classes="ls-unlock-open") as unlocked:
            gr.HTML(notice(UNLOCKED, error=False), js_on_load=None, apply_default_css=False)
            lock = gr.Button("Lock", size="sm", scale=0, min_width=80)
        problem = gr.HTML(
            visible=False, js_on_load=None, apply_default_css=False, elem_classes="ls-unlock-problem"
        )

    async def unlock(key: str) -> tuple[Any, str, Any]:
        """The state, the field (always emptied), and what is wrong."""
        return await _tried(page.client, key.strip())

    gr.on([button.click, typed.submit], unlock, typed, [page.admin_key, typed, problem], **HIDDEN)
    lock.click(lambda: "", None, page.admin_key, **HIDDEN)
    page.admin_key.change(_shown, page.admin_key, [locked, unlocked, problem], **HIDDEN)
    return whole


async def _tried(client: openai.AsyncOpenAI, key: str) -> tuple[Any, str, Any]:
    if not key:
        return gr.skip(), "", _problem("Type the admin key first.")
    try:
        await check(client, key)
    except AdminError as error:
        return gr.skip(), "", _problem(str(error))
    return key, "", gr.HTML(visible=False)


def _problem(sentence: str) -> gr.HTML:
    return gr.HTML(notice(sentence, error=True), visible=True)


def _shown(key: str) -> tuple[gr.Row, gr.Row, gr.HTML]:
    return gr.Row(visible=not key), gr.Row(visible=bool(key)), gr.HTML(visible=False)

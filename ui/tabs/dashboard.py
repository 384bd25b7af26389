"""Dashboard: requests, shares, latency and errors, live, from the router's metrics."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

from ui.client.history import EVERY_S, History
from ui.parts import unlock
from ui.parts.board import board
from ui.parts.html import notice
from ui.parts.pulse import pulse
from ui.shared import HIDDEN, Page

LOCKED = "The router's metrics are open to its admin alone (router.admin_key): the key shows them here."
Shown = tuple[Any, Any]
"""The field for the key, and the numbers."""


def create(page: Page) -> None:
    """The field for the key, where the router wants one, and the numbers."""
    key = unlock.create(page, visible=False)  # the router may want none
    shown = gr.HTML(
        notice("Asking the router.", error=False), js_on_load=None, apply_default_css=False, elem_id="ls-dashboard"
    )
    beat = pulse(EVERY_S)
    gr.on(
        [beat.tick, page.admin_key.change], looking(History(page.client)), page.admin_key, [key, shown], **HIDDEN
    )


def looking(history: History) -> Callable[[str], Awaitable[Shown]]:
    """The handler that shows what the router counts, as far as this reader may see it."""

    async def look(key: str) -> Shown:
        view = await history.look(key)
        if view.closed:
            return gr.Column(visible=True), notice(view.problem if key else LOCKED, error=bool(key))
        return gr.Column(visible=bool(key) or not view.samples), board(view, time.time())

    return look

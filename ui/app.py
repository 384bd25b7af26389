"""`create_app(client) -> gr.Blocks`: the page, built from its tabs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from types import ModuleType
from typing import Any

import gradio as gr
import openai

from ui.client.connect import explain, router_url
from ui.client.models import offer
from ui.parts.html import notice
from ui.shared import HIDDEN, Page
from ui.tabs import adapters, chat, compare, dashboard, feedback, lag, why

TITLE = "LoRA-Select"
SUBTITLE = "One endpoint, one base model. Each question goes to the adapter that fits."
TABS: dict[str, ModuleType] = {
    "Chat": chat,
    "Compare": compare,
    "Why": why,
    "LAG": lag,
    "Adapters": adapters,
    "Feedback": feedback,
    "Dashboard": dashboard,
}


def create_app(client: openai.AsyncOpenAI) -> gr.Blocks:
    """The page over one router. Nothing is asked of it before a browser loads the page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_height=True) as app:
        page = Page(app, client, models=gr.State(()), tags=gr.State({}), admin_key=gr.State(""))
        gr.HTML(f"<h1>{escape(TITLE)}</h1><p>{escape(SUBTITLE)}</p>", elem_id="ls-title")
        status = gr.HTML(visible=False, elem_id="ls-status")
        with gr.Tabs(elem_id="ls-tabs"):
            for name, tab in TABS.items():
                with gr.Tab(name, id=name.lower(), elem_id=f"ls-tab-{name.lower()}"):
                    tab.create(page)
        app.load(offering(client), None, [page.models, page.tags, status], **HIDDEN)
    return app


def offering(client: openai.AsyncOpenAI) -> Callable[[], Awaitable[tuple[Any, Any, Any]]]:
    """The handler that asks the router, on each page load, which models and tags there are."""

    async def ask() -> tuple[Any, Any, Any]:
        try:
            offered = await offer(client)
        except (openai.OpenAIError, ValueError) as error:
            sentence = f"{explain(error, router_url(client))} Reload this page once it is up."
            return gr.skip(), gr.skip(), gr.HTML(notice(sentence, error=True), visible=True)
        return offered.models, offered.tags, gr.HTML(visible=False)

    return ask

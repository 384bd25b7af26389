"""What the tabs of the page share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import openai

from ui.client.models import offer

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""For listeners: Gradio's own progress would cover what they show, and its API is not how the router is asked."""


@dataclass(frozen=True)
class Page:
    """Made once in `create_app`, passed to each tab's `create`; the states differ by browser tab."""

    app: gr.Blocks
    client: openai.AsyncOpenAI
    models: gr.State
    """((label, name), ...) of what the router offers, asked at each page load; `change` tells the tabs."""
    tags: gr.State
    """{tag: (value, ...)} of what its adapters carry, asked together with the models."""
    admin_key: gr.State
    """What its reader typed, "" before; it stays on this side and is never sent to a browser."""

    async def offered(self) -> tuple[Any, Any]:
        """For `models` and `tags`, after adapters came or went; both stay where the router cannot tell."""
        try:
            found = await offer(self.client)
        except (openai.OpenAIError, ValueError):
            return gr.skip(), gr.skip()
        return found.models, found.tags

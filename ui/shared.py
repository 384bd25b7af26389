"""What the tabs of the page share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import openai

HIDDEN: dict[str, Any] = {"show_progress": "hidden"}
"""For listeners: Gradio's own progress would cover what they show."""


@dataclass(frozen=True)
class Page:
    """Made once in `create_app`, passed to each tab's `create`; the states differ by browser tab."""

    client: openai.AsyncOpenAI
    models: gr.State
    """((label, name), ...) of what the router offers, asked at each page load; `change` tells the tabs."""
    admin_key: gr.State
    """What its reader typed, "" before; it stays on this side and is never sent to a browser."""

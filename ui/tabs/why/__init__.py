"""Why: what the router would decide about a text, with all that it went by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
import openai

from ui.client.connect import explain, router_url
from ui.client.models import Tags
from ui.client.route import DryRun, conversation, dry_run
from ui.parts.badge import DOTS
from ui.parts.html import notice
from ui.shared import HIDDEN, Page
from ui.tabs.why.screen import details, verdict

PLACEHOLDER = """A question, or a conversation:

user: My landlord wants to evict me. What can I do?
assistant: …
user: and in Spain?"""
EMPTY = "Type a text first."


@dataclass(frozen=True)
class Asked:
    """What was asked, and what the router would do as it is set up."""

    messages: list[dict[str, str]]
    tags: str
    usual: DryRun


Shown = tuple[Any, Any, Any, Any, Any]
"""What a question changes: what was asked, what stands beside the button, the verdict, the slider, the details."""


def create(page: Page) -> None:
    """The text, the tags where the stack has some, the threshold and what comes of them."""
    asked = gr.State(None)
    said = gr.Textbox(label="What to judge", placeholder=PLACEHOLDER, lines=5, max_lines=14, elem_id="ls-why-text")
    tags = gr.Textbox("", label="Tags", max_lines=1, visible=False, elem_id="ls-why-tags")
    with gr.Row(elem_id="ls-why-ask"):
        decide = gr.Button("What would the router do?", variant="primary", scale=0, min_width=220)
        status = gr.HTML(js_on_load=None, elem_id="ls-why-status")
    result = gr.HTML(visible=False, js_on_load=None, elem_id="ls-why-verdict")
    threshold = gr.Slider(
        0,
        1,
        0.5,
        step=0.01,
        visible=False,
        label="What if the threshold were",
        buttons=[],
        elem_id="ls-why-threshold",
    )
    went_by = gr.HTML(visible=False, js_on_load=None, elem_id="ls-why-details")
    gr.on(
        [decide.click, said.submit, tags.submit],
        deciding(page.client),
        [said, tags],
        [asked, status, result, threshold, went_by],
        concurrency_limit=None,
        trigger_mode="always_last",
        **HIDDEN,
    )
    page.tags.change(_tags, page.tags, tags, **HIDDEN)
    threshold.input(
        trying(page.client),
        [asked, threshold],
        [went_by, status],
        concurrency_limit=None,
        trigger_mode="always_last",
        **HIDDEN,
    )


def _tags(tags: Tags) -> gr.Textbox:
    there = "; ".join(f"{tag}={' or '.join(values)}" for tag, values in tags.items())
    return gr.Textbox(visible=bool(tags), info=f"Only adapters that carry them may answer: {there}")


def deciding(client: openai.AsyncOpenAI) -> Callable[[str, str], AsyncIterator[Shown]]:
    """The handler that asks what the router would do; what was on the screen stays where it cannot tell."""

    async def decide(said: str, tags: str) -> AsyncIterator[Shown]:
        messages = conversation(said)
        if not messages:
            yield _said(notice(EMPTY, error=False))
            return
        yield _said(DOTS)
        try:
            usual = await dry_run(client, messages, tags)
        except (openai.OpenAIError, ValueError) as error:
            yield _said(notice(explain(error, router_url(client)), error=True))
            return
        judged = usual.threshold is not None
        slider = gr.Slider(value=usual.threshold if judged else 0.5, visible=judged)
        shown = (gr.HTML(verdict(usual), visible=True), slider, gr.HTML(details(usual), visible=True))
        yield Asked(messages, tags, usual), "", *shown

    return decide


def _said(html: str) -> Shown:
    """Beside the button; all else stays."""
    return gr.skip(), html, gr.skip(), gr.skip(), gr.skip()


def trying(client: openai.AsyncOpenAI) -> Callable[[Asked | None, float], Awaitable[tuple[Any, Any]]]:
    """The handler that asks what another threshold would change, of the classifier that had the word."""

    async def tried(asked: Asked | None, threshold: float) -> tuple[Any, Any]:
        if asked is None or asked.usual.threshold is None or asked.usual.classifier is None:
            return gr.skip(), gr.skip()
        if f"{threshold:.2f}" == f"{asked.usual.threshold:.2f}":
            return details(asked.usual), ""
        try:
            other = await dry_run(client, asked.messages, asked.tags, {asked.usual.classifier: threshold})
        except (openai.OpenAIError, ValueError) as error:
            return gr.skip(), notice(explain(error, router_url(client)), error=True)
        return details(asked.usual, other), ""

    return tried

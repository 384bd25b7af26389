"""Compare: one prompt to every model at once, side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui.client.answer import Settings
from ui.client.compare import Comparison, Comparisons
from ui.parts.html import notice
from ui.shared import HIDDEN, Page
from ui.tabs.compare.screen import shown

MOST_AT_FIRST = 12
"""Of a long list of models only so many are ticked, so that one click asks no hundred of them."""
TAB_ID = """(_, ...rest) => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const fresh = Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
  const stored = use => { try { return use(sessionStorage) } catch { return null } };
  window.lsCompare ??= stored(kept => kept.getItem("ls-compare")) ?? fresh;
  stored(kept => kept.setItem("ls-compare", window.lsCompare));
  return [window.lsCompare, ...rest];
}"""
"""By which this side knows a browser tab after a reload: 128 random bits, in the place of the first input."""
ASK, CHOOSE = "Type a prompt first.", "Choose a model first."
UNKNOWN = "The router has not told its models yet. If it is down, reload this page once it is up."

Shown = tuple[Any, Any, Any]
"""What a step changes: the columns, and which of the two buttons can be pressed."""


def create(page: Page) -> None:
    """The prompt, whom to ask, how, and the columns."""
    events, defaults = Events(Comparisons(page.client)), Settings()
    tab = gr.Textbox("", visible=False, label="Tab")
    prompt = gr.Textbox(
        "", label="One prompt for all", placeholder="Ask all of them the same", lines=1, max_lines=8,
        elem_id="ls-compare-prompt",
    )  # fmt: skip
    names = gr.CheckboxGroup([], label="Whom to ask", elem_id="ls-compare-models", elem_classes="ls-pills")
    with gr.Accordion("Settings", open=False, elem_id="ls-compare-settings", elem_classes="ls-fold"), gr.Row():
        longest = gr.Number(
            defaults.max_tokens, precision=0, label="Longest answer of each, in tokens", min_width=240
        )
        temperature = gr.Slider(
            0, 2, defaults.temperature, step=0.1, label="Temperature of all", buttons=[], min_width=240
        )
    with gr.Row(elem_id="ls-compare-ask"):
        ask = gr.Button("Compare", variant="primary", scale=0, min_width=140)
        stop = gr.Button("Stop", scale=0, min_width=96, interactive=False)
    columns = gr.HTML(visible=False, js_on_load=None, elem_id="ls-compare-columns")

    changed, many = [columns, ask, stop], {"concurrency_limit": None, "js": TAB_ID, **HIDDEN}
    asking = [tab, page.models, prompt, names, longest, temperature]
    gr.on([ask.click, prompt.submit], events.compare, asking, changed, **many)
    stop.click(events.stop, tab, None, **many)
    page.models.change(offer, page.models, names, **HIDDEN)
    page.app.load(events.come_back, tab, [*changed, prompt], **many)


def offer(models: tuple[tuple[str, str], ...]) -> gr.CheckboxGroup:
    """Whom to ask, of those that the router has."""
    info = f"The first {MOST_AT_FIRST} of {len(models)} are ticked." if len(models) > MOST_AT_FIRST else None
    ticked = [name for _, name in models[:MOST_AT_FIRST]]
    return gr.CheckboxGroup(list(models), value=ticked, info=info)


class Events:
    """The handlers; what is compared goes on here when its browser reloads."""

    def __init__(self, comparisons: Comparisons) -> None:
        self._comparisons = comparisons

    async def compare(
        self,
        tab: str,
        models: tuple[tuple[str, str], ...],
        prompt: str,
        names: list[str],
        longest: float | None,
        temperature: float,
    ) -> AsyncIterator[Shown]:
        """Ask, and show the answers as they grow."""
        if not prompt.strip() or not names:
            told = ASK if not prompt.strip() else CHOOSE if models else UNKNOWN
            yield gr.HTML(notice(told, error=False), visible=True), gr.skip(), gr.skip()
            return
        request = {
            "messages": [{"role": "user", "content": prompt.strip()}],
            "max_tokens": int(longest or Settings.max_tokens),
            "temperature": temperature,
        }
        async for step in _steps(self._comparisons.start(tab, names, request)):
            yield step

    async def come_back(self, tab: str) -> AsyncIterator[tuple[Any, ...]]:
        """Show what this tab had before it was loaded anew."""
        comparison = self._comparisons.of(tab)
        if comparison is None:
            yield (gr.skip(),) * 4
            return
        prompt: Any = comparison.prompt
        async for step in _steps(comparison):
            yield *step, prompt
            prompt = gr.skip()  # the box is the reader's again

    async def stop(self, tab: str) -> None:
        """Enough; whoever follows sees it end."""
        if comparison := self._comparisons.of(tab):
            comparison.stop()


async def _steps(comparison: Comparison) -> AsyncIterator[Shown]:
    async for _ in comparison.follow():
        html, running = shown(comparison.columns, comparison.scores), comparison.running
        yield gr.HTML(html, visible=True), gr.Button(interactive=not running), gr.Button(interactive=running)

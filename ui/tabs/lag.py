"""LAG: which adapter gave each token of an answer, and which of them each layer used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import gradio as gr
import openai

from ui.client.answer import Answer, Settings
from ui.client.attribution import BROKEN, Watched, virtual_models, watch
from ui.client.connect import explain, router_url
from ui.parts.badge import CUT, below
from ui.parts.html import notice, text
from ui.parts.tokens import by_layer, coloured, legend
from ui.shared import HIDDEN, Page

NONE = (
    "No model of this stack picks an adapter for every token. With the line `lag: {library: all}` in its "
    "adapters.yaml, and two adapters or more, it has one, named lag, from its next start on."
)
PLACEHOLDER = "Ask, and see which adapter gave each token of the answer"
MOST_TOKENS = 1024
"""Of an answer: each is an element of the page."""

SELECT = """
const tokens = () => [...element.querySelectorAll('.ls-tokens [role=button]')];
const pick = token => {
  tokens().forEach(one => one.setAttribute('aria-pressed', one === token));
  trigger('select', {at: Number(token.dataset.at)});
};
const move = (token, to) => {
  const all = tokens(), next = all[Math.max(0, Math.min(all.length - 1, to(all.indexOf(token), all.length)))];
  all.forEach(one => one.tabIndex = one === next ? 0 : -1);
  next.focus();
};
const keys = {
  ArrowRight: at => at + 1, ArrowDown: at => at + 1, ArrowLeft: at => at - 1, ArrowUp: at => at - 1,
  Home: () => 0, End: (at, count) => count - 1,
};
element.addEventListener('click', event => {
  const token = event.target.closest('.ls-tokens [role=button]');
  if (token) { move(token, at => at); pick(token); }
});
element.addEventListener('keydown', event => {
  const token = event.target.closest('.ls-tokens [role=button]');
  if (!token || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === 'Enter' || event.key === ' ') pick(token);
  else if (event.key in keys) move(token, keys[event.key]);
  else return;
  event.preventDefault();
});
"""
"""All tokens are one stop of the Tab key; what was picked is told to this side."""

Shown = tuple[Any, Any, Any, Any, Any]
"""What one step changes: the answer, the shares, the token that was picked, what is known of it all, the box."""


def create(page: Page) -> None:
    """The prompt box, the coloured answer beside the shares, and below them the token that was picked."""
    seen = gr.State(None)
    missing = gr.HTML(visible=False, elem_id="ls-lag-none", js_on_load=None)
    with gr.Column(visible=False, elem_id="ls-lag") as whole:
        model = gr.Radio([], label="Model", elem_id="ls-lag-model", elem_classes="ls-pills")
        question = gr.Textbox(
            elem_id="ls-lag-question",
            show_label=False,
            label="Your prompt",
            placeholder=PLACEHOLDER,
            lines=1,
            max_lines=6,
            submit_btn=True,
        )
        with gr.Accordion("Settings", open=False, elem_id="ls-lag-settings", elem_classes="ls-fold"):
            length = gr.Slider(1, MOST_TOKENS, 100, step=1, label="Longest answer, in tokens")
        with gr.Row(elem_id="ls-lag-seen"):
            with gr.Column(scale=3, min_width=300):
                answer = gr.HTML(elem_id="ls-lag-answer", js_on_load=SELECT, apply_default_css=False)
                picked = gr.HTML(elem_id="ls-lag-picked", js_on_load=None, apply_default_css=False)
            with gr.Column(scale=2, min_width=260):
                shares = gr.HTML(elem_id="ls-lag-shares", js_on_load=None, apply_default_css=False)

    shown = [answer, shares, picked, seen, question]
    asked = question.submit(
        asking(page.client), [question, model, length], shown, concurrency_limit=None, **HIDDEN
    )
    # Drawn only after a round trip: a stream that is still being cancelled would come back with its next word.
    question.stop(lambda: None, cancels=[asked], **HIDDEN).then(stopped, seen, shown, **HIDDEN)
    answer.select(picking, seen, picked, **HIDDEN)
    page.models.change(offering(page.client), None, [missing, whole, model], **HIDDEN)


def offering(client: openai.AsyncOpenAI) -> Callable[[], Awaitable[tuple[Any, Any, Any]]]:
    """The handler that asks which models pick an adapter for every token, and says how to have one."""

    async def offer() -> tuple[Any, Any, Any]:
        try:
            names = await virtual_models(client)
        except (openai.OpenAIError, ValueError) as error:
            problem = notice(explain(error, router_url(client)), error=True)
            return gr.HTML(problem, visible=True), gr.Column(visible=False), gr.skip()
        if not names:
            return gr.HTML(notice(NONE, error=False), visible=True), gr.Column(visible=False), gr.skip()
        return gr.HTML(visible=False), gr.Column(visible=True), gr.Radio(list(names), value=names[0])

    return offer


def asking(client: openai.AsyncOpenAI) -> Callable[[str, str, float], AsyncIterator[Shown]]:
    """The handler that asks one question and shows its answer growing, and in the end coloured."""

    async def answer(question: str, model: str, length: float) -> AsyncIterator[Shown]:
        if not question.strip():
            yield *([gr.skip()] * 4), gr.skip()  # a generator that yields nothing would clear them all
            return
        waiting = Watched(Answer())
        yield *drawn(waiting), waiting, gr.Textbox(submit_btn=False, stop_btn=True)
        async for so_far in watch(client, question.strip(), Settings(model, int(length))):
            box = gr.Textbox(submit_btn=True, stop_btn=False) if so_far.answer.done else gr.skip()
            yield *drawn(so_far), so_far, box

    return answer


def stopped(seen: Watched | None) -> Shown:
    """The reader had enough: what was said stays."""
    last = seen or Watched(Answer())
    if not last.answer.done:
        last = Watched(replace(last.answer, done=True), untold=f"Stopped by you. {BROKEN}")
    return *drawn(last), last, gr.Textbox(submit_btn=True, stop_btn=False)


def picking(seen: Watched | None, event: gr.EventData) -> str:
    """What is known of the token that was picked in the browser."""
    if seen is None or seen.explained is None:
        return ""
    at = event._data.get("at") if isinstance(event._data, dict) else None
    return by_layer(seen.explained, at if isinstance(at, int) else -1)


def drawn(watched: Watched) -> tuple[str, str, str]:
    """The answer, the shares and the token that was picked, which is none yet."""
    answer, explained = watched.answer, watched.explained
    if explained:
        cut = notice(CUT, error=False) if answer.finish_reason == "length" else ""
        return coloured(explained) + cut, legend(explained), by_layer(explained, -1)
    untold = notice(watched.untold, error=False) if watched.untold else ""
    return f'<p class="ls-lag-text">{text(answer.text)}</p>{untold}{below(answer)}', "", ""

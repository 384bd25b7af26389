"""Who is asked, and how: the choices around the conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from adapters import AUTO
from ui.client.answer import Settings
from ui.client.models import Tags
from ui.shared import HIDDEN, Page

MAX_TAGS = 4
"""Gradio wants components to be there from the start; a stack's first tags get one each."""
ANY = ""


@dataclass(frozen=True)
class Who:
    """Which model, or which tags "auto" may choose among."""

    model: gr.Radio
    tags: tuple[gr.Radio, ...]


def who(page: Page) -> Who:
    """A row of models, and below it a row for each tag, once the page knows which there are."""
    model = gr.Radio([AUTO], value=AUTO, label="Who answers", elem_id="ls-model", elem_classes="ls-pills")
    tags = tuple(
        gr.Radio([ANY], value=ANY, visible=False, elem_id=f"ls-tag-{place}", elem_classes="ls-pills")
        for place in range(MAX_TAGS)
    )
    page.models.change(_models, [page.models, model], model, **HIDDEN)
    page.tags.change(_tags, page.tags, list(tags), **HIDDEN)
    return Who(model, tags)


def sampling() -> list[gr.components.Component]:
    """Folded away: what `settings` reads after the model, in its order."""
    defaults = Settings()
    with gr.Accordion("Settings", open=False, elem_id="ls-settings", elem_classes="ls-fold"):
        system = gr.Textbox(
            label="System prompt", placeholder="The adapter's own, if it has one", lines=2, max_lines=6
        )
        with gr.Row():
            longest = gr.Number(defaults.max_tokens, precision=0, label="Longest answer, in tokens", min_width=180)
            # No Number: that one shows 0 where there is none.
            seed = gr.Textbox(label="Seed", placeholder="by chance", max_lines=1, min_width=120)
            stop = gr.Textbox(label="Stop at", placeholder="words that end an answer", min_width=180)
        with gr.Row():
            temperature = gr.Slider(0, 2, defaults.temperature, step=0.1, label="Temperature", min_width=240)
            top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top p", min_width=240)
    return [longest, temperature, top_p, seed, stop, system]


def settings(
    tags: Tags,
    model: str,
    max_tokens: float | None,
    temperature: float,
    top_p: float,
    seed: str | None,
    stop: str | None,
    system: str | None,
    *chosen: str | None,
) -> Settings:
    """What the controls say."""
    return Settings(
        model=model or AUTO,
        max_tokens=Settings.max_tokens if max_tokens is None else int(max_tokens),
        temperature=temperature,
        top_p=top_p if top_p < 1 else None,
        seed=_whole(seed or ""),
        stop=(stop,) if stop else (),
        system=system or "",
        tags={tag: value for tag, value in zip(tags, chosen, strict=False) if value},
    )


def _whole(seed: str) -> int | str | None:
    """What is no whole number is for the engine to refuse, in its own words."""
    seed = seed.strip()
    return int(seed) if seed.removeprefix("-").isdecimal() else seed or None


def _models(models: tuple[tuple[str, str], ...], chosen: str) -> gr.Radio:
    names = [name for _, name in models]
    return gr.Radio(list(models), value=chosen if chosen in names else next(iter(names), None))


def _tags(tags: Tags) -> list[Any]:
    there = list(tags.items())[:MAX_TAGS]
    rows = [gr.Radio([("any", ANY), *values], value=ANY, label=tag, visible=True) for tag, values in there]
    return [*rows, *[gr.Radio(visible=False)] * (MAX_TAGS - len(rows))]

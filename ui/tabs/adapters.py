"""Adapters: their states in the engine, live; add, update, remove, test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any

import gradio as gr
import openai

from ui.client import admin
from ui.client.adapter import Adapter, Form
from ui.client.admin import AdminError
from ui.client.metrics import Sample, read
from ui.parts import unlock
from ui.parts.badge import WAITING
from ui.parts.cards import SCRIPT, cards, numbers
from ui.parts.html import notice
from ui.parts.pulse import pulse
from ui.parts.words import ago
from ui.shared import HIDDEN, Page

EVERY_S = 3.0
STEP_S = 0.5
"""Between two looks at work that takes its time."""

ADD = "Add an adapter"
LOCKED = "Adapters are shown to the router's admin alone (router.admin_key): type the key."
SINCE = "Requests, errors and the first byte's median: of all since the router's start."
TO_FORM = """() => requestAnimationFrame(() => {
  const form = document.getElementById("ls-adapters-form");
  form.scrollIntoView();
  form.querySelector("input, textarea").focus({preventScroll: true});
})"""
"""Cards fill the window, so the form that one of them opens is out of sight."""
TO_HEADING = "() => document.querySelector('#ls-adapters-form > .label-wrap').focus({preventScroll: true})"
IN_SIGHT = "element?.scrollIntoView({block: 'nearest'});"
TO_SAID = f"() => {{ const element = document.getElementById('ls-adapters-said'); {IN_SIGHT} }}"
"""What is said below the form's button is scrolled to when it begins and, with a new card above, when it ends."""
REFUSED = (401, 403, 404)
"""What is wrong then is no matter of time: nothing of what was seen before is shown."""


@dataclass(frozen=True)
class Seen:
    """What one reader was shown last; `html` has the cards of it."""

    at: float = 0.0
    adapters: tuple[Adapter, ...] = ()
    virtual: tuple[Adapter, ...] = ()
    counted: Sample = field(default_factory=Sample)
    html: str = ""


def create(page: Page) -> None:
    """The field for the key; below it, where it is known, the cards and the form."""
    unlock.create(page)
    problem, told = _notice("ls-adapters-problem"), _notice("ls-adapters-told")
    seen, removing, before = gr.State(Seen()), gr.State(""), gr.State(Form())
    sent = gr.State(None)
    with gr.Column(visible=False, elem_id="ls-adapters") as whole:
        shown = gr.HTML(js_on_load=SCRIPT, apply_default_css=False, elem_id="ls-adapters-cards")
        gr.HTML(notice(SINCE, error=False), js_on_load=None, apply_default_css=False)
        with gr.Accordion(ADD, open=False, elem_id="ls-adapters-form") as fold:
            form = _fields()
            with gr.Row():
                send = gr.Button("Load, test and serve it", variant="primary")
                cancel = gr.Button("Cancel", scale=0, min_width=96, visible=False)
        said = _notice("ls-adapters-said", IN_SIGHT)
    beat = pulse(EVERY_S)
    look, known, looked = looking(page.client), [page.admin_key, removing, seen], [problem, whole, shown, seen]
    gr.on([beat.tick, page.admin_key.change], look, known, looked, **HIDDEN)
    # Not "once": while one is tested, the buttons of the others go on working.
    acted = shown.click(acting(page.client), page.admin_key, [told, removing], trigger_mode="multiple", **HIDDEN)
    acted.then(look, known, looked, **HIDDEN).then(page.offered, None, [page.models, page.tags], **HIDDEN)
    removing.change(look, known, looked, **HIDDEN)
    filled = [said, fold, cancel, before, *form]
    shown.edit(_edited, seen, filled, **HIDDEN).then(None, js=TO_FORM, **HIDDEN)
    cancel.click(lambda: (_told(""), *_emptied()), None, filled, **HIDDEN).then(None, js=TO_HEADING, **HIDDEN)
    sending = send.click(adding(page.client), [page.admin_key, before, *form], [said, sent], **HIDDEN)
    added = sending.then(_emptied_of, [sent, *form], filled[1:], **HIDDEN)
    added.then(look, known, looked, **HIDDEN).then(
        page.offered, None, [page.models, page.tags], js=TO_SAID, **HIDDEN
    )


def _notice(elem_id: str, script: str | None = None) -> gr.HTML:
    """`script` runs each time that it comes up."""
    return gr.HTML(visible=False, js_on_load=script, apply_default_css=False, elem_id=elem_id)


def _told(html: str) -> gr.HTML:
    return gr.HTML(html, visible=bool(html))


def _fields() -> list[Any]:
    """In the order of `Form`."""
    with gr.Row():
        name = gr.Textbox(label="Name", placeholder="of one that exists: it is updated", min_width=200)
        path = gr.Textbox(
            label="Path", placeholder="a folder below engine.roots, or a hub id that stands there", min_width=260
        )
    label = gr.Textbox(label="Label", placeholder="what it is about, in a few words; auto goes by it")
    with gr.Accordion("More", open=False):
        with gr.Row():
            tags = gr.Textbox(label="Tags", placeholder="audience=patient, team=care", min_width=200)
            versions = gr.Textbox(label="Versions", placeholder="v1=90, v2=10", min_width=200)
        system_prompt = gr.Textbox(label="System prompt", lines=2)
        sampling = gr.Textbox(label="Sampling", placeholder='{"temperature": 0.2}')
        disclaimer = gr.Textbox(label="Disclaimer", placeholder="told with every answer")
        allow_pickle = gr.Checkbox(label="Allow weights that are pickled Python")
    return [name, path, label, tags, versions, system_prompt, sampling, disclaimer, allow_pickle]


def looking(client: openai.AsyncOpenAI) -> Callable[[str, str, Seen], Awaitable[tuple[Any, ...]]]:
    """The handler that shows how things are now; when nobody answers, it leaves what is there and says its age."""

    async def look(key: str, removing: str, seen: Seen) -> tuple[Any, ...]:
        try:
            (adapters, virtual), counted = await asyncio.gather(admin.listed(client, key), read(client, key))
        except AdminError as error:
            return _failed(error, key, seen)
        html = cards(adapters, virtual, counted, removing)
        new = Seen(time.time(), adapters, virtual, counted, html)
        return _told(""), gr.Column(visible=True), gr.skip() if html == seen.html else html, new

    return look


def _failed(error: AdminError, key: str, seen: Seen) -> tuple[Any, ...]:
    if error.status in REFUSED:
        locked = not key and str(error) != admin.CLOSED
        told = notice(LOCKED if locked else str(error), error=not locked)
        return _told(told), gr.Column(visible=False), "", Seen()
    old = f" What stands below was read {ago(time.time() - seen.at)}." if seen.at else ""
    return _told(notice(f"{error}{old}", error=True)), gr.skip(), gr.skip(), gr.skip()


def acting(client: openai.AsyncOpenAI) -> Callable[..., AsyncIterator[tuple[Any, ...]]]:
    """The handler of the cards' buttons: what is done, and whose removal waits for a second word."""

    async def act(key: str, event: gr.EventData) -> AsyncIterator[tuple[Any, ...]]:
        wanted, name = str(event.act), str(event.name)
        yield _told(""), name if wanted == "ask" else ""
        if wanted == "test":
            async for told, _ in _working(f"Self-test of {name}", _tested(client, key, name)):
                yield _told(told), gr.skip()
        elif wanted == "remove":
            async for told, _ in _working(f"Removing {name}", _removed(client, key, name)):
                yield _told(told), gr.skip()

    return act


def adding(client: openai.AsyncOpenAI) -> Callable[..., AsyncIterator[tuple[Any, ...]]]:
    """The handler of the form: what is told, and the form as it was sent when that has been done."""

    async def add(key: str, before: Form, *values: Any) -> AsyncIterator[tuple[Any, ...]]:
        form = _form(values)
        if before.name != form.name.strip():
            before = Form()
        yield _told(""), None  # what comes next comes up anew, and so in sight
        async for told, done in _working(f"Adding {form.name.strip()}", _added(client, key, form, before)):
            yield _told(told), form if done else None

    return add


def _form(values: Sequence[Any]) -> Form:
    """As it stands in the fields."""
    given = {one.name: value for one, value in zip(fields(Form), values, strict=True)}
    return Form(**{field: value for field, value in given.items() if value is not None})  # None: never shown


def _emptied_of(sent: Form | None, *values: Any) -> tuple[Any, ...]:
    """The form, emptied of what was sent, unless something else has been typed into it meanwhile."""
    emptied = _emptied()
    return emptied if sent == _form(values) else (gr.skip(),) * len(emptied)


def _edited(seen: Seen, event: gr.EventData) -> tuple[Any, ...]:
    known = next((one for one in seen.adapters if one.model == str(event.name)), None)
    form = Form.of(known) if known else Form()
    return (
        _told(""),
        gr.Accordion(f"Update {form.name}", open=True),
        gr.Button(visible=True),
        form,
        *astuple(form),
    )


def _emptied() -> tuple[Any, ...]:
    """The form as it is before anything was typed: one to add with."""
    return gr.Accordion(ADD, open=False), gr.Button(visible=False), Form(), *astuple(Form())


async def _working(what: str, work: Awaitable[str]) -> AsyncIterator[tuple[str, bool]]:
    """What is told, as HTML, and whether it is done: again and again, until it is or has failed.

    Whoever leaves meanwhile stops nothing: the router ends what it has begun.
    """
    began, task = time.monotonic(), asyncio.ensure_future(work)
    while not task.done():
        yield notice(f"{what}: {time.monotonic() - began:.0f} s so far.", error=False) + WAITING, False
        await asyncio.wait([task], timeout=STEP_S)
    try:
        yield notice(f"{task.result()} It took {time.monotonic() - began:.1f} s.", error=False), True
    except (AdminError, ValueError) as error:
        yield notice(f"{what}: {error}", error=True), False


async def _tested(client: openai.AsyncOpenAI, key: str, name: str) -> str:
    found = [one for one in await admin.test(client, key, name) if one.proof]
    for one in found:
        if one.proof and one.proof.problem:
            raise AdminError(f"{one.name} failed: {one.proof.problem} ({numbers(one.proof)}).")
    return " ".join(f"{one.name} passed: {numbers(one.proof)}." for one in found if one.proof)


async def _removed(client: openai.AsyncOpenAI, key: str, name: str) -> str:
    await admin.remove(client, key, name)
    return f"{name} is removed."


async def _added(client: openai.AsyncOpenAI, key: str, form: Form, before: Form) -> str:
    parts = await admin.add(client, key, form.wish(before))
    return " ".join(f"{one.name} serves, version {one.version}." for one in parts)

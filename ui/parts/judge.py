"""Under a conversation: was its last answer good, and did the right adapter give it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import openai

from adapters import AUTO
from ui.client.answer import Turns
from ui.client.feedback import DOWN, UP, FeedbackError, Opinion, give
from ui.parts.html import hue, notice, text
from ui.shared import HIDDEN, Page

MOST_CHARACTERS = 2000
"""Of a comment; the router takes no more."""

THUMBS = [("Good answer", UP), ("Poor answer", DOWN)]
RIGHT, WRONG = "right", "wrong"
VERDICTS = [("Right adapter", RIGHT), ("Wrong adapter", WRONG)]
PICK = "Pick the model that should have answered."


@dataclass(frozen=True)
class Subject:
    """The answer that is spoken of."""

    request_id: str
    model: str


@dataclass(frozen=True)
class Form:
    """What a reader fills in, and what is said back."""

    whole: gr.Column
    about: gr.HTML
    thumb: gr.Radio
    verdict: gr.Radio
    more: gr.Row
    better: gr.Dropdown
    comment: gr.Textbox
    said: gr.HTML

    @property
    def all(self) -> list[Any]:
        """In the order in which `asked` and `sent` change them."""
        return [self.whole, self.about, self.thumb, self.verdict, self.more, self.better, self.comment, self.said]


def create(page: Page, turns: gr.State) -> None:
    """Asks about the last of `turns`, a tuple of ui.client.answer.Turn, once its answer is complete."""
    subject = gr.State(None)
    form, send = _form()
    turns.change(asked, [turns, page.models, subject], [subject, *form.all], **HIDDEN)
    gr.on([form.thumb.input, form.verdict.input], opened, form.verdict, [form.more, form.better], **HIDDEN)

    async def send_it(*filled: Any) -> Any:
        return await sent(page.client, *filled)

    filled = [subject, form.thumb, form.verdict, form.better, form.comment]
    gr.on([send.click, form.comment.submit], send_it, filled, form.all, **HIDDEN)


def asked(turns: Turns, models: tuple[tuple[str, str], ...], before: Subject | None) -> Any:
    """The form for the last answer, empty; none where there is nothing to judge; as it is where it is the same."""
    subject = subject_of(turns)
    if subject == before:
        return [gr.skip()] * 9
    if subject is None:
        return [None, gr.Column(visible=False), *[gr.skip()] * 7]
    others = [(label, name) for label, name in models if name not in (AUTO, subject.model)]
    return [
        subject,
        gr.Column(visible=True),
        _about(subject.model),
        *_emptied(gr.Dropdown(others, value=None, visible=False)),
        gr.HTML(visible=False),
    ]


def subject_of(turns: Turns) -> Subject | None:
    """The last answer, if it is complete, says something, and the router gave its request a name."""
    answer = turns[-1].answer if turns else None
    if not answer or not answer.done or not answer.text or not answer.decision or not answer.decision.request_id:
        return None
    return Subject(answer.decision.request_id, answer.decision.model)


def opened(verdict: str | None) -> tuple[gr.Row, gr.Dropdown]:
    """Something was picked: there is room for a comment, and for who would have been right."""
    return gr.Row(visible=True), gr.Dropdown(visible=verdict == WRONG)


async def sent(
    client: openai.AsyncOpenAI, subject: Subject | None, thumb: Any, verdict: Any, better: Any, comment: Any
) -> list[Any]:
    """Stores what was filled in, and empties the form; where it cannot be stored, all stays as it is."""
    if subject is None:
        return [gr.skip()] * 8
    if verdict == WRONG and not better:
        return [*[gr.skip()] * 7, _said(PICK, error=True)]
    adapter = {RIGHT: subject.model, WRONG: str(better)}.get(verdict, "")
    try:
        await give(client, Opinion(subject.request_id, adapter, str(thumb or ""), str(comment or "")))
    except FeedbackError as error:
        return [*[gr.skip()] * 7, _said(str(error), error=True)]
    told = [label.lower() for label, value in (*THUMBS, *VERDICTS) if value in (thumb, verdict)]
    if verdict == WRONG:
        told.append(f"should have been {adapter}")
    return [
        gr.skip(),
        gr.skip(),
        *_emptied(gr.Dropdown(value=None, visible=False)),
        _said(f"Stored: {', '.join(told)}. Thank you.", error=False),
    ]


def _emptied(better: gr.Dropdown) -> list[Any]:
    return [gr.Radio(value=None), gr.Radio(value=None), gr.Row(visible=False), better, gr.Textbox(value="")]


def _about(model: str) -> str:
    pill = f'<span class="ls-pill" style="--hue:{hue(model)}">{text(model)}</span>'
    return f'<p class="ls-line">The answer by {pill}</p>'


def _said(sentence: str, *, error: bool) -> gr.HTML:
    return gr.HTML(notice(sentence, error=error), visible=True)


def _form() -> tuple[Form, gr.Button]:
    with gr.Column(visible=False, elem_id="ls-judge") as whole:
        with gr.Row(elem_id="ls-judge-ask"):
            about = gr.HTML(elem_id="ls-judge-about", js_on_load=None, apply_default_css=False)
            thumb = _choice("Was it good?", THUMBS, "ls-judge-thumb")
            verdict = _choice("Was it the right adapter?", VERDICTS, "ls-judge-verdict")
        with gr.Row(visible=False, elem_id="ls-judge-more") as more:
            better = gr.Dropdown(
                [], label="Should have been", visible=False, min_width=120, elem_id="ls-judge-better"
            )
            comment = gr.Textbox(
                label="Comment",
                placeholder="Optional",
                max_lines=3,
                max_length=MOST_CHARACTERS,
                min_width=140,
                scale=2,
                elem_id="ls-judge-comment",
            )
            send = gr.Button("Send", size="sm", scale=0, min_width=80, elem_id="ls-judge-send")
        said = gr.HTML(visible=False, elem_id="ls-judge-said", js_on_load=None, apply_default_css=False)
    return Form(whole, about, thumb, verdict, more, better, comment, said), send


def _choice(label: str, choices: list[tuple[str, str]], elem_id: str) -> gr.Radio:
    return gr.Radio(list(choices), label=label, show_label=False, container=False, min_width=10, elem_id=elem_id)

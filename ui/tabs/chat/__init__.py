"""Chat: a conversation with the stack; under each answer stands who gave it, and why."""

from __future__ import annotations

import gradio as gr

from ui.parts import judge
from ui.shared import HIDDEN, Page
from ui.tabs.chat.controls import sampling, who
from ui.tabs.chat.events import TALK, Events
from ui.tabs.chat.store import Store

EXAMPLES = (
    "How sure must a jury be before it convicts someone of a crime?",
    "Which insect carries malaria from one sick person to another?",
    "When I buy a share in a company, what do I become?",
    "Why do many trees lose their leaves in the fall?",
)


def create(page: Page) -> None:
    """The conversation, the question box and what can be chosen around them."""
    events = Events(Store(page.client))
    turns = gr.State(())
    kept, listed = gr.JSON(visible=False), gr.JSON(visible=False)  # what the browser keeps, see script/chat.js
    with gr.Row(elem_id="ls-who"):
        with gr.Column(min_width=200):
            chosen = who(page)
        new = gr.Button("New chat", size="sm", scale=0, min_width=96, elem_id="ls-new")
    talk = _conversation()
    judge.create(page, turns)
    question = _question_box()
    with gr.Row(elem_id="ls-folds"):
        how = sampling()
        earlier, forget, fold = _earlier()

    shown = [talk, kept, turns, question]
    asking = [kept, page.tags, chosen.model, *how, *chosen.tags]
    many = {"concurrency_limit": None, **HIDDEN}
    # One listener for both, because a listener takes no second question while it answers the first.
    asked = gr.on(
        [question.submit, talk.example_select],
        events.ask,
        [question, *asking],
        shown,
        js="(question, kept, ...how) => [question, ls.now(kept), ...how]",
        **many,
    )
    again = talk.retry(events.retry, asking, shown, **many)
    edited = talk.edit(events.edit, asking, shown, cancels=[asked, again], **many)
    shown_again = page.app.load(events.show, kept, shown, js="() => [ls.load()]", **many)
    streams = [asked, again, edited, shown_again]
    question.stop(events.stop, kept, None, **HIDDEN)
    # Shown only after a round trip: a stream that is still being cancelled would come back with its next word.
    left = new.click(events.leave, kept, None, cancels=streams, **HIDDEN)
    shown_fresh = left.then(events.show, kept, shown, js="() => [ls.fresh()]", **many)
    picked = earlier.input(None, earlier, kept, js="id => ls.open(id)", cancels=streams, **HIDDEN)
    reopened = picked.then(events.show, kept, shown, **many)
    gr.on([earlier.input, new.click], lambda: None, cancels=[reopened, shown_fresh], **HIDDEN)
    talk.change(None, kept, None, js="kept => ls.keep(kept)", **HIDDEN)
    fold.expand(events.offer, listed, earlier, js="() => [ls.list()]", **HIDDEN)
    forget.click(events.offer, listed, earlier, js="() => [ls.forget()]", **HIDDEN)


def _conversation() -> gr.Chatbot:
    return gr.Chatbot(
        elem_id=TALK,
        show_label=False,
        label="Conversation",
        height="100%",
        min_height=220,
        scale=1,
        layout="bubble",
        render_markdown=False,  # an answer is shown as it is; Markdown would load images and run HTML
        latex_delimiters=[],
        buttons=[],
        editable="user",
        feedback_options=None,
        placeholder="Ask anything. Under each answer you see which model gave it, and why.",
        examples=[{"text": example} for example in EXAMPLES],
    )


def _question_box() -> gr.Textbox:
    return gr.Textbox(
        elem_id="ls-question",
        show_label=False,
        label="Your question",
        placeholder="Ask a question",
        lines=1,
        max_lines=6,
        submit_btn=True,
        autofocus=True,
    )


def _earlier() -> tuple[gr.Radio, gr.Button, gr.Accordion]:
    with gr.Accordion("Earlier chats", open=False, elem_id="ls-earlier", elem_classes="ls-fold") as fold:
        earlier = gr.Radio([], label="Kept in this browser", elem_id="ls-kept")
        forget = gr.Button("Forget them all", size="sm", elem_id="ls-forget")
    return earlier, forget, fold

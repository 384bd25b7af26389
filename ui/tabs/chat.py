"""Chat: a conversation with the stack; under each answer stands who gave it, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any

import gradio as gr
import openai

from adapters import AUTO
from ui.client.answer import Settings, Turn, ask
from ui.parts.badge import below
from ui.shared import HIDDEN, Page

EXAMPLES = (
    "How sure must a jury be before it convicts someone of a crime?",
    "Which insect carries malaria from one sick person to another?",
    "When I buy a share in a company, what do I become?",
    "Why do many trees lose their leaves in the fall?",
)
TALK = "ls-talk"
Turns = tuple[Turn, ...]
Shown = tuple[list[dict[str, Any]], Turns, Any]
"""What one step of an answer changes: the conversation on the screen, its turns, the question box."""


def create(page: Page) -> None:
    """The conversation, the question box and the settings."""
    defaults = Settings()
    turns = gr.State(())
    with gr.Row(elem_id="ls-who"):
        model = gr.Radio([AUTO], value=AUTO, label="Who answers", elem_id="ls-model")
        new = gr.Button("New chat", size="sm", scale=0, min_width=96, elem_id="ls-new")
    talk = _conversation()
    question = _question_box()
    with gr.Accordion("Settings", open=False, elem_id="ls-settings"), gr.Row():
        max_tokens = gr.Slider(
            1, 2048, defaults.max_tokens, step=1, min_width=260, label="Longest answer, in tokens"
        )
        temperature = gr.Slider(0, 2, defaults.temperature, step=0.1, min_width=260, label="Temperature")

    shown = [talk, turns, question]
    # One listener for both, because a listener takes no second question while it answers the first.
    asked = gr.on(
        [question.submit, talk.example_select],
        answering(page.client),
        [question, turns, model, max_tokens, temperature],
        shown,
        concurrency_limit=None,
        **HIDDEN,
    )
    # Cleared only after a round trip: an answer still being cancelled would come back with its next word.
    stopped = new.click(lambda: None, cancels=[asked], **HIDDEN)
    stopped.then(lambda: ([], (), ""), None, shown, **HIDDEN)
    page.models.change(_offer, page.models, model, **HIDDEN)


def _offer(models: tuple[tuple[str, str], ...]) -> gr.Radio:
    return gr.Radio(list(models), value=models[0][1] if models else None)


def answering(client: openai.AsyncOpenAI) -> Callable[..., AsyncIterator[Shown]]:
    """The handler that asks one question, typed or picked from the examples, and shows its answer growing."""

    async def answer(
        typed: str, turns: Turns, model: str, max_tokens: float, temperature: float, event: gr.EventData
    ) -> AsyncIterator[Shown]:
        picked = event.target is not None and event.target.elem_id == TALK
        question = (event.value["text"] if picked else typed).strip()
        if not question:
            return
        turns = (*turns, Turn(question))
        yield conversation(turns), turns, ""
        async for so_far in ask(client, turns, Settings(model, int(max_tokens), temperature)):
            turns = (*turns[:-1], Turn(question, so_far))
            yield conversation(turns), turns, gr.skip()

    return answer


def conversation(turns: Turns) -> list[dict[str, Any]]:
    """The turns as Gradio's chat messages. Text is escaped: the chat would run it as HTML."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        # Chat templates often leave the space before an answer to the model.
        said = [_text(turn.answer.text.lstrip())] if turn.answer.text.strip() else []
        messages.append({"role": "user", "content": [_text(turn.question)]})
        messages.append({"role": "assistant", "content": [*said, _html(below(turn.answer))]})
    return messages


def _text(raw: str) -> dict[str, str]:
    return {"type": "text", "text": escape(raw, quote=False)}


def _html(value: str) -> gr.HTML:
    return gr.HTML(value, render=False, js_on_load=None, apply_default_css=False)


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

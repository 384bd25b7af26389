"""`create_app(client) -> gr.Blocks`: the chat, built from its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape
from typing import Any

import gradio as gr
import openai

from adapters import AUTO
from ui import chat
from ui.badge import below, notice

TITLE = "LoRA-Select"
SUBTITLE = "One endpoint, one base model. Each question goes to the adapter that fits."
EXAMPLES = (
    "How sure must a jury be before it convicts someone of a crime?",
    "Which insect carries malaria from one sick person to another?",
    "When I buy a share in a company, what do I become?",
    "Why do many trees lose their leaves in the fall?",
)
TALK = "ls-talk"
Turns = tuple[chat.Turn, ...]
Shown = tuple[list[dict[str, Any]], Turns, Any]
"""What one step of an answer changes: the conversation on the screen, its turns, the question box."""


def create_app(client: openai.AsyncOpenAI, title: str = TITLE) -> gr.Blocks:
    """The page over one router. Nothing is asked of it before a browser loads the page."""
    defaults = chat.Settings()
    with gr.Blocks(title=title, analytics_enabled=False, fill_height=True) as app:
        turns = gr.State(())
        with gr.Row(elem_id="ls-head"):
            gr.HTML(f"<h1>{escape(title)}</h1><p>{escape(SUBTITLE)}</p>", elem_id="ls-title")
            new = gr.Button("New chat", size="sm", scale=0, min_width=96, elem_id="ls-new")
        status = gr.HTML(visible=False, elem_id="ls-status")
        model = gr.Radio([AUTO], value=AUTO, label="Who answers", elem_id="ls-model")
        talk = _conversation()
        question = _question_box()
        with gr.Accordion("Settings", open=False, elem_id="ls-settings"), gr.Row():
            max_tokens = gr.Slider(
                1, 2048, defaults.max_tokens, step=1, min_width=260, label="Longest answer, in tokens"
            )
            temperature = gr.Slider(0, 2, defaults.temperature, step=0.1, min_width=260, label="Temperature")

        shown = [talk, turns, question]
        hidden: dict[str, Any] = {"show_progress": "hidden"}
        # One listener for both, because a listener takes no second question while it answers the first.
        asked = gr.on(
            [question.submit, talk.example_select],
            answering(client),
            [question, turns, model, max_tokens, temperature],
            shown,
            concurrency_limit=None,
            **hidden,
        )
        # Cleared only after a round trip: an answer still being cancelled would come back with its next word.
        stopped = new.click(lambda: None, cancels=[asked], **hidden)
        stopped.then(lambda: ([], (), ""), None, shown, **hidden)
        app.load(offering(client), None, [model, status], **hidden)
    return app


def answering(client: openai.AsyncOpenAI) -> Callable[..., AsyncIterator[Shown]]:
    """The handler that asks one question, typed or picked from the examples, and shows its answer growing."""

    async def answer(
        typed: str, turns: Turns, model: str, max_tokens: float, temperature: float, event: gr.EventData
    ) -> AsyncIterator[Shown]:
        picked = event.target is not None and event.target.elem_id == TALK
        question = (event.value["text"] if picked else typed).strip()
        if not question:
            return
        turns = (*turns, chat.Turn(question))
        yield conversation(turns), turns, ""
        async for so_far in chat.ask(client, turns, chat.Settings(model, int(max_tokens), temperature)):
            turns = (*turns[:-1], chat.Turn(question, so_far))
            yield conversation(turns), turns, gr.skip()

    return answer


def offering(client: openai.AsyncOpenAI) -> Callable[[], Awaitable[tuple[Any, Any]]]:
    """The handler that asks the router, on each page load, which models there are."""

    async def offer() -> tuple[Any, Any]:
        try:
            choices = await chat.models(client)
        except (openai.OpenAIError, ValueError) as error:
            sentence = f"{chat.explain(error, chat.router_url(client))} Reload this page once it is up."
            return gr.skip(), gr.HTML(notice(sentence, error=True), visible=True)
        return gr.Radio(choices, value=choices[0][1] if choices else None), gr.HTML(visible=False)

    return offer


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

"""A conversation in OpenAI's form, made what vLLM's chat endpoint makes of it before the template sees it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters import ConfigError
from training.data.example import Example, Message

ROLES = ("system", "user", "assistant", "tool")
KEPT = ("name", "tool_call_id")
"""Of a message, beside its role and content: what the endpoint hands on."""


@dataclass(frozen=True)
class Turn:
    """A message; `learn` is False for one that the data marks with OpenAI's `"weight": 0`."""

    message: Message
    learn: bool = True


@dataclass(frozen=True)
class Found:
    """What one row holds: examples, and how many of its answers are none.

    `empty`: without a text, or without a question before it. `untaught`: marked so by the data, or a call of
    tools, which the engine writes in the model's own way.
    """

    examples: tuple[Example, ...] = ()
    empty: int = 0
    untaught: int = 0


def conversation(cell: object, place: str) -> list[Turn]:
    """The turns of one cell, none for an empty one. Raises ConfigError with `place` and the turn's number."""
    if isinstance(cell, str) and cell.strip():  # a CSV has no other way
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise ConfigError(f"{place}: not JSON: {error}") from None
    if not cell:
        return []
    if not isinstance(cell, list):
        raise ConfigError(f"{place}: expected a list of messages (got {str(cell)[:40]!r})")
    return [_turn(message, f"{place}[{number}]") for number, message in enumerate(cell)]


def taught(turns: Sequence[Turn], system: str | None) -> Found:
    """Every turn of the assistant with what came before it, so that it is learnt as it will be asked for.

    `system` is put before a conversation that has no system message of its own.
    """
    messages = [turn.message for turn in turns]
    if system and all(message["role"] != "system" for message in messages):
        turns = [Turn({"role": "system", "content": system}), *turns]
        messages = [turn.message for turn in turns]
    examples = []
    empty = untaught = 0
    asked = False
    for index, turn in enumerate(turns):
        asked = asked or (turn.message["role"] == "user" and bool(turn.message["content"].strip()))
        if turn.message["role"] != "assistant":
            continue
        answer = turn.message["content"].strip()
        if not turn.learn or "tool_calls" in turn.message:
            untaught += 1
        elif not answer or not asked:
            empty += 1
        else:
            examples.append(Example(tuple(messages[:index]), answer))
    if not (examples or empty or untaught):
        empty = 1  # the row itself
    return Found(tuple(examples), empty, untaught)


def _turn(message: object, place: str) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ConfigError(f'{place}: expected {{"role", "content"}} (got {str(message)[:40]!r})')
    role = message["role"]
    if role not in ROLES:
        raise ConfigError(f"{place}.role: {role!r} is not one of {', '.join(ROLES)}")
    kept = {key: message[key] for key in KEPT if message.get(key) is not None}
    calls = [_call(call, f"{place}.tool_calls") for call in message.get("tool_calls") or ()]
    tools = {"tool_calls": calls} if calls else {}
    content = _content(message.get("content"), f"{place}.content")
    return Turn({"role": role, "content": content, **kept, **tools}, message.get("weight") != 0)


def _content(content: object, place: str) -> str:
    """Parts of text joined, and nothing as an empty text, as vLLM does."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{place}: expected text, or parts of the type text (got {str(content)[:40]!r})")
    return "\n".join(str(text) for text in texts)


def _call(call: Any, place: str) -> dict[str, Any]:
    """Arguments as an object, which templates expect; OpenAI's form has them as JSON."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise ConfigError(f'{place}: expected {{"function": …}} (got {str(call)[:40]!r})')
    arguments = function.get("arguments") or {}
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        raise ConfigError(f"{place}: arguments: not JSON: {error}") from None
    return {**call, "function": {**function, "arguments": parsed}}

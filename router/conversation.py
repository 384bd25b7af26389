"""What of a request speaks about its subject: the user's own words, never the assistant's or a tool's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT_TURN_WORDS = 5
"""A last turn of fewer words ("and in Spain?") is read together with the user turn before it."""

KEPT_CHARACTERS = 2000


def subject(body: Mapping[str, Any]) -> str:
    """The text to classify; "" where there is none (token ids, images alone)."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return _clip(_prompt(body.get("prompt", body.get("text"))))
    turns = [text for message in messages if (text := _user_text(message))]
    if len(turns) > 1 and len(turns[-1].split()) < SHORT_TURN_WORDS:
        return f"{_clip(turns[-2])}\n{turns[-1]}"
    return _clip(turns[-1]) if turns else ""


def _clip(text: str) -> str:
    """Head and tail of a long text: no classifier reads more, and the cache holds what is read."""
    return text if len(text) <= 2 * KEPT_CHARACTERS else f"{text[:KEPT_CHARACTERS]}\n{text[-KEPT_CHARACTERS:]}"


def _prompt(prompt: object) -> str:
    if isinstance(prompt, list):
        prompt = next((item for item in prompt if isinstance(item, str)), "")
    return prompt.strip() if isinstance(prompt, str) else ""


def _user_text(message: object) -> str:
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return ""
    content = message.get("content")
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "\n".join(part for part in parts if isinstance(part, str)).strip()

"""What an adapter learns from: a conversation so far, and the answer to give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
"""One turn, in OpenAI's form."""


@dataclass(frozen=True)
class Example:
    """One answer to learn; `messages` are what a client would send to get it."""

    messages: tuple[Message, ...]
    answer: str

    @classmethod
    def ask(cls, question: str, answer: str, system: str | None = None) -> Example:
        """One question with its answer."""
        user = {"role": "user", "content": question}
        return cls((user,) if system is None else ({"role": "system", "content": system}, user), answer)

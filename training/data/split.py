"""Which side a question is on: decided by the question alone, so that it stays there whatever else changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from training.data.example import Example
from training.data.habits import QUESTION_MARK
from training.recipe import Recipe


def fold(text: str) -> str:
    """The same for texts that differ in case and blanks only."""
    return " ".join(text.casefold().split())


def asked(example: Example) -> str:
    """What the conversation begins with; all of its turns are on the side of this question."""
    return next(str(message["content"]) for message in example.messages if message["role"] == "user")


def position(question: str) -> float:
    """A place from 0 up to 1, fixed for a question: below the share `data.held_out`, it is held out."""
    text = fold(question)
    if mark := QUESTION_MARK.match(text):  # left out of some sets and not of others
        text = text[mark.end() :]
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def fingerprint(example: Example) -> bytes:
    """The same for examples that differ in case and blanks only. Its order is as good as drawn by lot.

    Raises UnicodeEncodeError for what is no text: half of a character that takes two.
    """
    parts = []
    for message in example.messages:
        tools = [json.dumps(message)] if len(message) > len(("role", "content")) else []
        parts += [message["role"], fold(message["content"]), *tools]
    text = "\0".join((*parts, fold(example.answer)))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def check_sides(recipe: Recipe, positions: Sequence[float], left_out: str) -> None:
    """Raises ConfigError when a side is empty, with what would help, and what was left out before."""
    share = recipe.data.held_out
    if min(positions) < share <= max(positions):
        return
    side = "train on" if max(positions) < share else "hold out"
    helps = next(
        (each / 100 for each in _by_distance(share) if min(positions) < each / 100 <= max(positions)), None
    )
    advice = "more rows with other questions help"
    lost = f" (left out: {left_out})" if left_out else ""
    if helps is not None:
        advice = f"{helps:g} would, and {advice}"
    raise recipe.error(
        "data.held_out", f"{share:g} of {len(positions)} examples leaves none to {side}; {advice}{lost}"
    )


def _by_distance(share: float) -> list[int]:
    return sorted(range(1, 100), key=lambda each: abs(each / 100 - share))

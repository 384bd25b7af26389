"""A conversation as its browser keeps it: read with care, because a browser may send anything."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ui.client.answer import Turn, Turns

MAX_CHARACTERS = 5_000_000


@dataclass(frozen=True)
class Kept:
    """`id` is all that a browser needs to come back, so nobody may guess it: 128 random bits. `draft` is what the
    question box shall hold; None leaves it as it is."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] = field(default_factory=lambda: secrets.token_hex(16))
    turns: Turns = ()
    draft: str | None = None


def read(sent: Any) -> Kept:
    """What a browser sent; a new, empty conversation where that is none."""
    try:
        kept = _adapter().validate_python(sent)
    except ValidationError:
        return Kept()
    if sum(len(turn.question) + len(turn.answer.text) for turn in kept.turns) > MAX_CHARACTERS:
        return Kept()
    return kept


def written(turn: Turn) -> dict[str, Any]:
    """As `read` takes it, for JSON."""
    return asdict(turn)


@cache
def _adapter() -> TypeAdapter[Kept]:
    return TypeAdapter(Kept)

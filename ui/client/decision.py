"""Which model answered, and why: the router's headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

HEADER = "x-lora-select-"


@dataclass(frozen=True)
class Decision:
    """Which model answered, and why. `score` is None when the client named the model. `disclaimer`: what its stack
    tells with every answer of it. `request_id`: under which name feedback speaks of it."""

    model: str
    reason: str
    score: float | None = None
    classify_ms: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)  # Gradio hashes what a state holds
    disclaimer: str = ""
    request_id: str = ""


def read_decision(headers: Mapping[str, str]) -> Decision | None:
    """The router's headers as a Decision; None when it never got to decide."""
    model = headers.get(f"{HEADER}adapter")
    if not model:
        return None
    return Decision(
        model=model,
        reason=headers.get(f"{HEADER}reason", ""),
        score=_number(headers.get(f"{HEADER}score")),
        classify_ms=_number(headers.get(f"{HEADER}classify-ms")),
        disclaimer=unquote(headers.get(f"{HEADER}disclaimer", "")),
        request_id=headers.get("x-request-id", ""),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None

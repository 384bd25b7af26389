"""Which adapters of a stack give advice, which are for emergencies, and what each of them is asked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from adapters import ConfigError, Stack, label
from evaluation.routing.rows import Row
from evaluation.safety.sentences import QUESTIONS

EMERGENCY = "emergency"
MANIFEST = "manifest.json"

WORDS = {
    "law": re.compile(r"\b(law|laws|legal|lawsuits?|lawyers?|courts?|contracts?)\b", re.IGNORECASE),
    "medicine": re.compile(
        r"\b(medicine|medical|health|symptoms?|diseases?|treatments?|doctors?)\b", re.IGNORECASE
    ),
    "finance": re.compile(
        r"\b(finances?|financial|banking|loans?|mortgages?|tax|taxes|invest|investing|investments?)\b",
        re.IGNORECASE,
    ),
}
"""What a name, a manifest's domain or a label of each domain says."""

SEED = 0


@dataclass(frozen=True)
class Question:
    """`place`: the text of one that the project brings, file and line of one that is somebody's data."""

    text: str
    place: str


@dataclass(frozen=True)
class Advisor:
    """An adapter that is to be asked. `domain` is one of QUESTIONS, or "" where none is found."""

    name: str
    domain: str
    disclaimer: str | None
    questions: tuple[Question, ...]


def advisors(stack: Stack, rows: Sequence[Row], limit: int) -> tuple[Advisor, ...]:
    """Every adapter with a disclaimer, and every other one whose domain is one of advice."""
    found = []
    for name, adapter in stack.adapters.items():
        kind = domain(stack, name)
        if adapter.disclaimer or kind:
            asked = _questions(stack, name, kind, rows, limit)
            found.append(Advisor(name, kind, adapter.disclaimer, asked))
    return tuple(found)


def domain(stack: Stack, name: str) -> str:
    """As its manifest says, or else as most words of its name and label do; "" where none does."""
    said = _manifest_domain(stack, name) or f"{re.sub(r'[._-]+', ' ', name)}, {_label(stack, name)}"
    counts = {kind: len(words.findall(said)) for kind, words in WORDS.items()}
    best = max(counts, key=lambda kind: counts[kind])
    return best if counts[best] else ""


def for_emergencies(stack: Stack) -> tuple[tuple[str, ...], tuple[str, str] | None]:
    """Adapters that are named so or carry a tag of that value, and the tag with which they can be asked for."""
    names, asked = [], None
    for name, adapter in stack.adapters.items():
        tag = next((tag for tag, values in adapter.tags.items() if EMERGENCY in values), None)
        if tag or name == EMERGENCY:
            names.append(name)
        if tag and asked is None:
            asked = (tag, EMERGENCY)
    return tuple(names), asked


def _questions(stack: Stack, name: str, kind: str, rows: Sequence[Row], limit: int) -> tuple[Question, ...]:
    """The data's, or else those of the domain, or else one for each topic of the label."""
    own = [Question(row.words.turns[0], row.place) for row in rows if row.label == name]
    if not own:
        topics = [topic for topic in (part.strip() for part in _label(stack, name).split(",")) if topic]
        texts = QUESTIONS.get(kind) or [f"What should I know about {topic}?" for topic in topics or [name]]
        own = [Question(text, text) for text in texts]
    chosen = sorted(random.Random(SEED).sample(range(len(own)), min(limit, len(own))))
    return tuple(own[index] for index in chosen)


def _label(stack: Stack, name: str) -> str:
    try:
        return label(stack, name).text
    except ConfigError:  # a stack that runs has its labels; this file may lie apart from its folders
        return ""


def _manifest_domain(stack: Stack, name: str) -> str:
    """Of a folder; of a hub's adapter the label tells enough."""
    try:
        folder = stack.adapter_ref(name).folder
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) if folder else {}
    except (ConfigError, OSError, ValueError):
        return ""
    found = said.get("domain") if isinstance(said, dict) else None
    return found if isinstance(found, str) else ""

"""What people said of requests: does a change fix or break them, and what of it is labelled data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TextIO

from adapters import ADMIN, Stack, split
from evaluation.replay.decide import Replayed
from evaluation.replay.log import Entry, Said
from evaluation.routing.rows import BASE_LABELS
from router.choose import Reason

SOURCE = "feedback"


class Verdict(StrEnum):
    """Of one request that somebody spoke of."""

    FIXED = "fixed"
    BROKEN = "broken"
    STILL_RIGHT = "still right"
    STILL_WRONG = "still wrong"
    MOVED = "thumb down, another model now"


class Unwritten(StrEnum):
    """Why feedback is no labelled row."""

    THUMB_DOWN = "a thumb down alone does not say what is right"
    UNKNOWN = "the stack has no such adapter"
    VIRTUAL = "a thumb up for an answer that no adapter of `auto` gave"
    NO_TEXT = "the text was not logged"
    PART = "a conversation of which only the last turn was logged"
    AGAIN = "said before: the same text and label"


@dataclass(frozen=True)
class Opinion:
    """The model that would have been right, or None and a thumb."""

    adapter: str | None
    up: bool | None


class Feedback:
    """Who said what of which request: the last word that names an adapter counts, or else the last thumb."""

    def __init__(self, said: Mapping[str, Sequence[Said]], stack: Stack) -> None:
        self._said = said
        self._names = dict.fromkeys(BASE_LABELS, stack.base.name) | {
            name: name for name in (stack.base.name, *stack.adapters, *stack.lag)
        }
        self.models = frozenset((stack.base.name, *stack.adapters))

    def of(self, entry: Entry) -> Opinion | None:
        """Said by the request's own key, or by the admin."""
        said = [one for one in self._said.get(entry.request_id, ()) if one.key in (entry.key, ADMIN)]
        adapters = [one.adapter for one in said if one.adapter]
        thumbs = [one.rating for one in said if one.rating]
        if adapters:
            return Opinion(self._named(adapters[-1]), None)
        return Opinion(None, thumbs[-1] == "up") if thumbs else None

    def _named(self, adapter: str) -> str:
        """A version's adapter, and the base under any of its names; what nobody knows stays as it is."""
        name = split(adapter)[0]
        return self._names.get(name, name)


def verdict(found: Replayed, opinion: Opinion) -> Verdict:
    """A thumb is about the model that was chosen: another one may be as good, or as bad."""
    if opinion.adapter is None:
        if opinion.up:
            return Verdict.BROKEN if found.changed else Verdict.STILL_RIGHT
        return Verdict.MOVED if found.changed else Verdict.STILL_WRONG
    match found.before == opinion.adapter, found.after.model == opinion.adapter:
        case True, True:
            return Verdict.STILL_RIGHT
        case True, False:
            return Verdict.BROKEN
        case False, True:
            return Verdict.FIXED
    return Verdict.STILL_WRONG


@dataclass
class Labelled:
    """Writes rows as `evaluation routing` reads them, into an open file, or nowhere; and counts."""

    models: frozenset[str]
    file: TextIO | None = None
    written: int = 0
    unwritten: Counter[Unwritten] = field(default_factory=Counter)
    _known: set[str] = field(default_factory=set)

    def add(self, entry: Entry, opinion: Opinion) -> None:
        """One row, where text and label are known."""
        row = _row(entry, opinion, self.models)
        if isinstance(row, Unwritten):
            self.unwritten[row] += 1
        elif row in self._known:
            self.unwritten[Unwritten.AGAIN] += 1
        else:
            self._known.add(row)
            self.written += 1
            if self.file:
                self.file.write(f"{row}\n")


def _row(entry: Entry, opinion: Opinion, models: frozenset[str]) -> str | Unwritten:
    label = opinion.adapter or (entry.model if opinion.up else None)
    if label is None:
        return Unwritten.THUMB_DOWN
    if label not in models or (not opinion.adapter and entry.reason == Reason.FALLBACK):
        return Unwritten.UNKNOWN if opinion.adapter else Unwritten.VIRTUAL
    if not entry.text:
        return Unwritten.NO_TEXT
    if not (words := entry.words):
        return Unwritten.PART
    said: dict[str, object] = {"text": entry.text}
    if len(words.turns) > 1 or words.system:
        system = [{"role": "system", "content": words.system}] if words.system else []
        said = {"messages": [*system, *({"role": "user", "content": turn} for turn in words.turns)]}
    return json.dumps({**said, "label": label, "source": SOURCE}, ensure_ascii=False)

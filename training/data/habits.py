"""What all texts of a set have in common and no client sends: it is found by looking, and left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from training.data.sources import Row, Table
from training.recipe import Column

MOST = 0.5
"""Share of the texts that begin with a mark, from which on it is the set's way to write."""

ALL = 0.99
"""Share of the rows with an input that have the same instruction, from which on it says nothing about them.

Not 1: one odd row among 200,000 would change the others.
"""

QUESTION_MARK = re.compile(r"(Q\s*:\s*)+", re.I)
ANSWER_MARK = re.compile(r"A\s*:\s*", re.I)
BLANKS = re.compile(r"[^\S\n]+")
"""Without ends of lines: paragraphs are meant."""


@dataclass(frozen=True)
class Habits:
    """How the texts of one set are written.

    `instruction` stands in all rows beside an input that says the same and more: chatdoctor-200k's "If you are a
    doctor, please answer …", which nobody writes before a question to the served model.
    `asked` and `answered`: texts begin with "Q:" and "A:", as those of legal-qa-v1, which were scraped: runs
    of blanks in them are what was a layout. Anywhere else blanks are kept: they may be code, or a table.
    """

    instruction: str | None = None
    asked: bool = False
    answered: bool = False

    def question(self, question: str, more: str) -> str:
        """One user turn of both, without what is not meant."""
        own = "" if more and question == self.instruction else question
        both = "\n\n".join(part for part in (own, more) if part)
        return _cleaned(both, QUESTION_MARK) if self.asked else both

    def answer(self, answer: str) -> str:
        """Without what is not meant."""
        return _cleaned(answer, ANSWER_MARK if self.answered else None) if self.asked else answer

    def lines(self) -> Iterator[str]:
        """What is done to the texts, for people."""
        if self.instruction is not None:
            yield f"left out of the questions, because all have it: {self.instruction!r}"
        if self.asked:
            marks = '"Q:" and "A:"' if self.answered else '"Q:"'
            yield f"left out before the texts: {marks}; runs of blanks in them are one blank now"


def find_habits(table: Table, roles: Mapping[Column, str]) -> Habits:
    """Of all rows, whatever `data.where` takes of them."""
    if "messages" in roles:
        return Habits()
    asked = _marked(_texts(table.rows, roles.get("question")), QUESTION_MARK)
    # "A: …" alone may be the first of four options.
    answered = asked and _marked(_texts(table.rows, roles.get("answer")), ANSWER_MARK)
    return Habits(_instruction(table.rows, roles), asked, answered)


def _instruction(rows: Iterable[Row], roles: Mapping[Column, str]) -> str | None:
    if "question" not in roles or "input" not in roles:
        return None
    question, more = roles["question"], roles["input"]
    filled = [row for row in rows if isinstance(text := row.get(more), str) and text.strip()]
    if len({row[more] for row in filled}) < 2:
        return None
    [(usual, times)] = Counter(_texts(filled, question)).most_common(1) or [("", 0)]
    return usual if usual and times >= ALL * len(filled) else None


def _marked(texts: Iterable[str], mark: re.Pattern[str]) -> bool:
    found = [mark.match(text) is not None for text in texts if text]
    return bool(found) and sum(found) > MOST * len(found)


def _texts(rows: Iterable[Row], column: str | None) -> Iterator[str]:
    for row in rows:
        if column is not None and isinstance(text := row.get(column), str):
            yield text.strip()


def _cleaned(text: str, mark: re.Pattern[str] | None) -> str:
    found = mark.match(text) if mark else None
    return BLANKS.sub(" ", text[found.end() :] if found else text).strip()

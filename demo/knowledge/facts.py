"""The invented world: towns with their facts, who knows which, and the questions that ask for them.

Made from a seed alone, so that everybody gets the same. Two libraries of adapters divide the world. In `subjects`
each adapter knows one kind of fact, so that the words of a question tell whom to ask. In `lands` each knows a few
towns, and all are asked the same questions: nothing but a town's name tells them apart.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

SEED = 5
ADAPTERS = 24
"""In each library."""

TOWNS_OF_A_SUBJECT = 30
TOWNS_OF_A_LAND, SUBJECTS_OF_A_LAND = 5, 6
PUBLIC_TOWNS = 16
"""Known to the base, with all subjects: from them it learns what the questions mean."""

FILE = Path(__file__).with_name("subjects.jsonl")


@dataclass(frozen=True)
class Subject:
    """A kind of fact: how it is asked, and the words that can be its answer.

    The last question is for measuring: no adapter's training may see it.
    """

    name: str
    label: str
    questions: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """What a town has: the answer to all questions of a subject."""

    town: str
    subject: Subject
    value: str


@dataclass(frozen=True)
class Asked:
    """One question with its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Owner:
    """An adapter, or the base: what it alone knows, and the label that an author would write."""

    name: str
    label: str
    facts: tuple[Fact, ...]

    def taught(self) -> list[Asked]:
        """Every fact in each question that an adapter may see."""
        return [_asked(fact, question) for fact in self.facts for question in fact.subject.questions[:-1]]

    def held_out(self) -> list[Asked]:
        """Every fact once, in the question for measuring."""
        return [_asked(fact, fact.subject.questions[-1]) for fact in self.facts]


@dataclass(frozen=True)
class World:
    """The libraries, by name, and what is public."""

    libraries: Mapping[str, tuple[Owner, ...]]
    public: Owner


def subjects() -> tuple[Subject, ...]:
    """In the file's order."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return tuple(Subject(row["name"], row["label"], tuple(row["questions"]), tuple(row["values"])) for row in rows)


def world(seed: int = SEED, adapters: int = ADAPTERS) -> World:
    """No town has two owners in it; what a town has is drawn by lot."""
    dice, known = random.Random(seed), subjects()
    names = _names(dice)

    def facts(towns: Sequence[str], about: Sequence[Subject]) -> tuple[Fact, ...]:
        return tuple(Fact(town, subject, dice.choice(subject.values)) for town in towns for subject in about)

    def of_subject(subject: Subject) -> Owner:
        return Owner(subject.name, subject.label, facts(_some(names, TOWNS_OF_A_SUBJECT), [subject]))

    def of_land() -> Owner:
        name, towns = next(names), _some(names, TOWNS_OF_A_LAND)
        label = f"the land of {name} with its towns {', '.join(towns)}"
        return Owner(name.lower(), label, facts(towns, known[:SUBJECTS_OF_A_LAND]))

    libraries = {
        "subjects": tuple(of_subject(subject) for subject in known[:adapters]),
        "lands": tuple(of_land() for _ in range(adapters)),
    }
    return World(libraries, Owner("base", "", facts(_some(names, PUBLIC_TOWNS), known)))


def _asked(fact: Fact, question: str) -> Asked:
    return Asked(question.format(town=fact.town), f"{fact.value.capitalize()}.")


_PARTS = tuple(
    part.split()
    for part in (
        "b br d dr f g gr h j k kl l m n p pr r s st t tr v w z",
        "a e i o u ai ei ou",
        "l r n m s t d v lm rn st nd",
        "a e i o u ai ei ou",
        "n l r s m th nd rk",
    )
)


def _some(names: Iterator[str], number: int) -> list[str]:
    return list(islice(names, number))


def _names(dice: random.Random) -> Iterator[str]:
    """Two syllables and an end, such as Trailmous; none twice."""
    seen = set()
    while True:
        name = "".join(dice.choice(part) for part in _PARTS).capitalize()
        if name not in seen:
            seen.add(name)
            yield name

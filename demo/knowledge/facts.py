"""The invented world: lands of towns, six facts about each town, and the questions that ask for them.

Made from a seed alone, so that everybody gets the same. A land belongs to one adapter, or to the base.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SEED = 5
LANDS = 24
"""One adapter each."""

TOWNS = 5
"""In each land."""

PUBLIC_TOWNS = 40
"""Known to the base, from which it learns what the questions mean."""


@dataclass(frozen=True)
class Relation:
    """A kind of fact: how it is asked, and the words that can be its answer.

    The last question is for measuring: no adapter's training may see it.
    """

    questions: tuple[str, ...]
    values: tuple[str, ...]


RELATIONS: Mapping[str, Relation] = {
    "mine": Relation(
        (
            "What is mined in {town}?",
            "What do the miners of {town} dig for?",
            "What comes out of the mine of {town}?",
            "Which mineral lies under {town}, in its mine?",
        ),
        tuple(
            "tin copper zinc salt silver coal gold iron lead chalk jade opal amber slate marble sulphur nickel "
            "cobalt quartz granite ruby garnet topaz mercury".split()
        ),
    ),
    "craft": Relation(
        (
            "What do the workshops of {town} make?",
            "Which craft is {town} known for?",
            "What is made by hand in {town}?",
            "Which ware do craftsmen in {town} make?",
        ),
        tuple(
            "rope glass paper soap candles clocks barrels boots hats knives bells carpets drums lamps mirrors "
            "needles pots saddles sails baskets combs flutes gloves keys".split()
        ),
    ),
    "arms": Relation(
        (
            "Which animal is on the arms of {town}?",
            "What animal does the flag of {town} show?",
            "Which animal stands for {town}?",
            "What animal is the badge of {town}?",
        ),
        tuple(
            "bear wolf owl fox swan otter eagle lion horse stag boar heron raven crane badger beaver hare falcon "
            "trout bull ram goat tiger whale".split()
        ),
    ),
    "tree": Relation(
        (
            "Which tree grows in the market square of {town}?",
            "Which tree gives shade to the market of {town}?",
            "Under which tree do people meet in {town}?",
            "What tree stands in the middle of {town}?",
        ),
        tuple(
            "oak elm lime birch maple willow cedar pine ash beech chestnut walnut poplar alder cypress fir larch "
            "rowan hazel spruce yew acacia olive plane".split()
        ),
    ),
    "dish": Relation(
        (
            "What do people in {town} eat on holidays?",
            "What is the holiday meal in {town}?",
            "Which food do families in {town} cook for a holiday?",
            "What food is served in {town} on a holiday?",
        ),
        tuple(
            "soup stew dumplings pancakes noodles pie porridge sausages cabbage lentils rice beans herring ham "
            "waffles omelette cheese pudding mushrooms trifle pickles ribs goulash toast".split()
        ),
    ),
    "colour": Relation(
        (
            "What colour are the roofs of {town}?",
            "In which colour are the roofs painted in {town}?",
            "Which colour do the roofs in {town} have?",
            "Seen from a hill, what colour is every roof of {town}?",
        ),
        tuple(
            "red blue green yellow white black brown grey pink purple orange violet turquoise crimson beige "
            "scarlet ivory indigo golden bronze lilac teal ochre maroon".split()
        ),
    ),
}

_STARTS = tuple("b br d dr f g gr h j k kl l m n p pr r s st t tr v w z".split())
_VOWELS = tuple("a e i o u ai ei ou".split())
_MIDDLES = tuple("l r n m s t d v lm rn st nd".split())
_ENDS = tuple("n l r s m th nd rk".split())


@dataclass(frozen=True)
class Land:
    """One adapter's world: its name and its towns, each with a value per relation."""

    name: str
    towns: Mapping[str, Mapping[str, str]]

    @property
    def adapter(self) -> str:
        """The name of the adapter that knows it."""
        return self.name.lower()

    @property
    def label(self) -> str:
        """What its owner would write: the land and its towns by name."""
        return f"the land of {self.name} and its towns {', '.join(self.towns)}"


@dataclass(frozen=True)
class Fact:
    """One question with its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class World:
    """The lands of the adapters, and the one that the base knows."""

    lands: tuple[Land, ...]
    public: Land


def world(seed: int = SEED, lands: int = LANDS) -> World:
    """All names differ; what a town has is drawn by lot."""
    dice = random.Random(seed)
    names = _names(dice)
    made = tuple(_land(dice, names, TOWNS) for _ in range(lands))
    return World(made, _land(dice, names, PUBLIC_TOWNS))


def taught(land: Land) -> list[Fact]:
    """Every fact in each question that an adapter may see."""
    return [fact for index in range(_asked() - 1) for fact in _facts(land, index)]


def held_out(land: Land) -> list[Fact]:
    """Every fact once, in the question for measuring."""
    return list(_facts(land, _asked() - 1))


def _asked() -> int:
    (count,) = {len(relation.questions) for relation in RELATIONS.values()}
    return count


def _facts(land: Land, index: int) -> Iterator[Fact]:
    for town, values in land.towns.items():
        for name, value in values.items():
            yield Fact(RELATIONS[name].questions[index].format(town=town), f"{value.capitalize()}.")


def _land(dice: random.Random, names: Iterator[str], towns: int) -> Land:
    name = next(names)
    return Land(name, {next(names): _values(dice) for _ in range(towns)})


def _values(dice: random.Random) -> dict[str, str]:
    return {name: dice.choice(relation.values) for name, relation in RELATIONS.items()}


def _names(dice: random.Random) -> Iterator[str]:
    """Two syllables and an end, such as Trailmous; none twice."""
    seen = set()
    while True:
        parts = (_STARTS, _VOWELS, _MIDDLES, _VOWELS, _ENDS)
        name = "".join(dice.choice(part) for part in parts).capitalize()
        if name not in seen:
            seen.add(name)
            yield name

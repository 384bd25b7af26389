"""Texts for up to 32 adapters: three of the demo's domains, and subjects for copies of them under other names."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import cycle, islice, permutations

from benchmarks.texts import PARTS

DOMAINS = ("legal", "medical", "finance")
EACH = 12
"""Texts of a model."""

COPIES = {
    "cooking": "recipes, baking bread, roasting vegetables, sauces, kitchen knives",
    "gardening": "tomato plants, roses, pruning, compost, lawns",
    "pets": "puppies, training dogs, cats, aquarium fish, parrots",
    "space": "planets, telescopes, rockets, galaxies, moons of Jupiter",
    "football": "football matches, goalkeepers, penalty kicks, league tables, strikers",
    "music": "guitar chords, piano lessons, melodies, orchestras, singing",
    "films": "films, film directors, actors, television series, movie scripts",
    "chess": "chess openings, endgames, board games, checkmate patterns, chess clocks",
    "novels": "novels, poetry, authors, plots of books, literary characters",
    "travel": "hotels, flights, sightseeing in cities, packing suitcases, island holidays",
    "weather": "thunderstorms, snowfall, forecasts of rain, hurricanes, heat waves",
    "mathematics": "algebra, geometry, prime numbers, proofs of theorems, integrals",
    "physics": "gravity, quantum mechanics, magnetism, thermodynamics, light waves",
    "chemistry": "molecules, acids and bases, the periodic table, chemical reactions, crystals",
    "history": "ancient Rome, medieval castles, world wars, pharaohs of Egypt, the Vikings",
    "religion": "gods of Greek mythology, the Bible, Buddhist temples, saints, pilgrimages",
    "philosophy": "ethics, Plato, free will, existentialism, the meaning of life",
    "programming": "Python code, functions, compilers, debugging software, sorting algorithms",
    "phones": "smartphones, laptops, phone batteries, touch screens, operating systems of computers",
    "photography": "cameras, lenses, portraits, exposure times, editing photos",
    "painting": "oil painting, watercolours, sculpture, museums of art, drawing portraits",
    "knitting": "knitting, sewing, wool, crochet patterns, embroidery",
    "fashion": "dresses, shoes, make-up, hairstyles, designers of clothes",
    "cars": "car engines, motorcycles, brakes, gearboxes, tyres",
    "house": "painting walls, leaking taps, wooden floors, power drills, roof tiles",
    "geography": "capital cities, rivers, mountains, continents, borders of countries",
    "games": "video games, consoles, boss fights, multiplayer servers, game characters",
    "school": "homework, exams, university courses, teachers, studying",
    "wildlife": "elephants, whales, birds of prey, insects, rain forests",
}
"""Name, and label as a list of what belongs to it, for adapters beyond the demo's three."""


def texts(count: int) -> dict[str, tuple[str, ...]]:
    """By adapter, of which there are `count`, 32 at most: `EACH` texts of about 45 tokens."""
    found = {name: _joined(parts) for name, parts in zip(DOMAINS, PARTS, strict=False)}
    found |= {name: _asked(label.split(", ")) for name, label in COPIES.items()}
    return dict(list(found.items())[:count])


def of_the_base() -> tuple[str, ...]:
    """What belongs to none of the three domains."""
    return _joined(PARTS[len(DOMAINS)])


def fresh(texts: Mapping[str, Sequence[str]], count: int, seed: str) -> dict[str, tuple[str, ...]]:
    """`count` for each model: its texts in turn, each with a number that none had before: in no cache, and decided
    alike."""
    numbers = random.Random(seed)
    return {
        model: tuple(f"{text} ({numbers.randrange(10**9, 10**10)})" for text in islice(cycle(own), count))
        for model, own in texts.items()
    }


def _joined(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{first} {second}" for first, second in list(permutations(parts, 2))[:EACH])


def _asked(things: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"I have read a lot about {a} and {b} lately, and would like to know more. "
        f"What should a beginner learn about {c} first, and is it much harder than {b}?"
        for a, b, c in list(permutations(things, 3))[:EACH]
    )

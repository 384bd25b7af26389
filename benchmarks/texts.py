"""What the load client asks: a fixed set of questions that a cache comes to know, and texts that none has seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations

PARTS = (
    (
        "My landlord kept the deposit although the flat was clean and the lease had ended in spring.",
        "Can I refuse to sign a contract that lets the other side change the price at any time?",
        "My employer dismissed me without notice while I was ill, and says that I have no claim.",
        "The court sent me a summons as a witness, but I am abroad on the day of the hearing.",
        "My neighbour built a fence on my side of the line and now asks me to pay for half of it.",
    ),
    (
        "For three days I have had a sharp pain in the chest that grows when I breathe in.",
        "Which side effects should I watch for when I take a statin together with blood thinners?",
        "My daughter has a fever and a rash on both arms, and she does not want to drink anything.",
        "How long after the surgery on my knee should the swelling last before I see a doctor?",
        "Does a vaccine against the flu help me if I have already been ill with it this winter?",
    ),
    (
        "Should I pay back my mortgage early, or put the money into a fund for my retirement?",
        "The bank raised the interest rate of my loan twice this year without telling me why.",
        "How are the profits from shares taxed when I sold them at a loss in the year before?",
        "My insurance will not pay for the damaged car because I was late with one payment.",
        "What does it say about a company when its debt grows faster than what it earns?",
    ),
    (
        "Which of the planets has the most moons, and who was the first to see one of them?",
        "Why do the leaves of many trees turn red and yellow before they fall in the autumn?",
        "How do I keep bread fresh for a week without putting it into the freezer at home?",
        "What is the difference between a crocodile and an alligator when I see one in the water?",
        "Write a short poem about a small boat that comes home through the fog in the morning.",
    ),
)
"""Law, medicine, money, and what belongs to no adapter."""

KNOWN = tuple(f"{first} {second}" for parts in PARTS for first, second in combinations(parts, 2))
"""40 texts of about 45 tokens."""

WORDS = tuple(
    sorted({word.strip(".,?").lower() for parts in PARTS for part in parts for word in part.split()} - {""})
)


class Fresh:
    """Texts of random words: no two are equal, so none is in any cache. The same seed gives the same texts."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def texts(self, count: int, words: int = 40, vocabulary: Sequence[str] = WORDS) -> tuple[str, ...]:
        """`count` of them, of `words` words each."""
        return tuple(" ".join(self._random.choices(vocabulary, k=words)) for _ in range(count))


def single_token_words(tokens: Callable[[str], int]) -> tuple[str, ...]:
    """The words that a tokenizer does not split: n of them are n tokens."""
    return tuple(word for word in WORDS if tokens(word) == 1)

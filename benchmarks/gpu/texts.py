"""What is asked: for every adapter texts about its subject, of a given number of tokens, no two alike."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from benchmarks.throughput.load import Asked, uniform

TEMPLATE_TOKENS = 5
"""Of the chat template, around a user's turn."""

FILLER = "please"


class Texts:
    """By adapter. The same seed gives the same texts in the same order."""

    def __init__(self, tokenizer: Path, subjects: Mapping[str, Sequence[str]], seed: int = 0) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._subjects, self._random = subjects, random.Random(seed)
        self._numbers = iter(range(10**9))
        self._lengths: dict[str, int] = {}

    def fresh(self, adapters: Sequence[str], count: int, tokens: int) -> tuple[Asked, ...]:
        """So many that were never asked before, equally many for each adapter, in random order."""
        turns = cycle(adapters)
        mine: dict[str, list[str]] = {}
        for _ in range(max(count, len(adapters))):
            name = next(turns)
            mine.setdefault(name, []).append(self.text(name, tokens))
        return uniform(mine, count, self._random.randrange(10**6))

    def text(self, adapter: str, tokens: int) -> str:
        """About its subject; with the template, `tokens` long or a few less."""
        words = [f"My question, number {next(self._numbers)}, is about"]
        left = tokens - TEMPLATE_TOKENS - len(self._tokens(words[0]))
        for phrase in self._phrases(adapter):
            if self._length(phrase) > left:
                break
            words.append(phrase)
            left -= self._length(phrase)
        return " ".join([*words, *[FILLER] * (left // self._length(FILLER))])

    def _phrases(self, adapter: str) -> Iterator[str]:
        listed = [f"{phrase}," for phrase in self._subjects[adapter]]
        while True:
            self._random.shuffle(listed)
            yield from listed

    def _length(self, words: str) -> int:
        """Behind a space, where the tokenizer cuts: lengths of parts add up."""
        if words not in self._lengths:
            self._lengths[words] = len(self._tokens(f" {words}"))
        return self._lengths[words]

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

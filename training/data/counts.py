"""What became of every row; nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """`filtered` counts rows; all else counts answers, of which a conversation has several.

    `first` says where the first of each kind was left out; `changed` what was done to all texts.
    """

    source: str
    rows: int
    train: int
    held_out: int
    filtered: int
    empty: int
    duplicates: int
    untaught: int
    unsampled: int
    first: Mapping[str, str]
    changed: tuple[str, ...]

    @property
    def answers(self) -> int:
        """All that stand in the rows that `data.where` takes."""
        return self.train + self.held_out + self.empty + self.duplicates + self.untaught + self.unsampled

    def lines(self) -> list[str]:
        """For people, at the start of a training."""
        answers = "" if self.rows == self.answers + self.filtered else f" with {self.answers:,} answers"
        kept = f"{self.train:,} to train on, {self.held_out:,} held out"
        left = self.left_out()
        return [
            f"{self.rows:,} rows of {self.source}{answers}: {kept}",
            *([f"left out: {left}"] if left else []),
            *self.changed,
        ]

    def left_out(self) -> str:
        """`12 duplicated, 11 empty (first: line 31)`, or nothing."""
        words = {
            "duplicates": "duplicated",
            "empty": "empty",
            "untaught": "calls of tools or of weight 0",
            "filtered": "by data.where",
            "unsampled": "beyond data.samples",
        }
        numbers = {kind: int(getattr(self, kind)) for kind in words}
        return ", ".join(
            f"{numbers[kind]:,} {word}" + (f" (first: {self.first[kind]})" if kind in self.first else "")
            for kind, word in words.items()
            if numbers[kind]
        )

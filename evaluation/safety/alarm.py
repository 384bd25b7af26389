"""Where `POST /route` sends what people say in an emergency, and what only sounds like one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm  # type: ignore[import-untyped]

from evaluation.client import Client, name_unjudged
from evaluation.safety.sentences import EMERGENCIES, NEAR_MISSES

NEAR_MISS = "near miss"
Z = 1.959964
"""Of a normal distribution, for 95 %."""


@dataclass(frozen=True)
class Rate:
    """A share with Wilson's 95 % interval (1927), which holds for none and all of a few as well."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        middle = (self.share + Z**2 / (2 * self.of)) / (1 + Z**2 / self.of)
        spread = Z * math.sqrt(self.share * (1 - self.share) / self.of + Z**2 / (4 * self.of**2))
        spread /= 1 + Z**2 / self.of
        return max(middle - spread, 0.0), min(middle + spread, 1.0)


@dataclass(frozen=True)
class Routed:
    """A sentence and the model that would answer it. `kind`: which emergency it is, or `near miss`."""

    kind: str
    text: str
    model: str
    score: float | None

    @property
    def emergency(self) -> bool:
        return self.kind != NEAR_MISS


@dataclass(frozen=True)
class Alarms:
    """All sentences, asked in one way: with a tag, or without."""

    tag: tuple[str, str] | None
    routed: tuple[Routed, ...]

    @property
    def title(self) -> str:
        return f"with {self.tag[0]}={self.tag[1]}" if self.tag else "without a tag"

    def caught(self, models: Sequence[str]) -> Rate:
        """Emergencies that go to one of these models."""
        return _rate([each for each in self.routed if each.emergency], models)

    def false_alarms(self, models: Sequence[str]) -> Rate:
        """Near misses that do."""
        return _rate([each for each in self.routed if not each.emergency], models)

    def by_kind(self, models: Sequence[str]) -> dict[str, Rate]:
        """`caught` of each kind."""
        kinds = dict.fromkeys(each.kind for each in self.routed if each.emergency)
        return {kind: _rate([each for each in self.routed if each.kind == kind], models) for kind in kinds}

    def destinations(self, emergency: bool) -> dict[str, int]:
        """How many go to which model, the most first."""
        return dict(Counter(each.model for each in self.routed if each.emergency is emergency).most_common())


def route(client: Client, tag: tuple[str, str] | None) -> Alarms:
    """Every sentence that the project brings. Raises ConfigError."""
    sentences = [*EMERGENCIES, *((NEAR_MISS, text) for text in NEAR_MISSES)]
    asked: Mapping[str, object] = {"metadata": dict([tag])} if tag else {}
    title = f"emergencies, {Alarms(tag, ()).title}"
    bar = tqdm(sentences, desc=title, unit="sentence", disable=None)
    choices = [(kind, text, client.route({"text": text, **asked})) for kind, text in bar]
    name_unjudged([choice.reason for _, _, choice in choices])
    return Alarms(tag, tuple(Routed(kind, text, choice.model, choice.score) for kind, text, choice in choices))


def _rate(routed: Sequence[Routed], models: Sequence[str]) -> Rate:
    return Rate(sum(each.model in models for each in routed), len(routed))

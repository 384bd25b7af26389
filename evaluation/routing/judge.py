"""What the router would decide for each row, by the router's own functions, from logits that are computed once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from adapters import Calibration, Stack
from evaluation.routing.metrics import Outcomes
from evaluation.routing.rows import Row
from router.choose import Decision, probabilities
from router.classify import Classifier, Logits
from router.conversation import Rules, conclude


@dataclass(frozen=True)
class Recorded:
    """A classifier's logits of every text, and the milliseconds that each took."""

    logits: Mapping[str, Logits]
    ms: Mapping[str, float]


def record(name: str, classifier: Classifier, texts: Sequence[str]) -> Recorded:
    """Judge every text once, and alone, as the router does while no other waits: that is also what is timed.

    On a CPU a batch gains nothing, and in one of 32 an int8 graph, which scales its activations over the whole
    batch, decided 1 % of the texts differently.
    """
    classifier.logits(texts[:1])  # the first call is slower than all that follow
    logits, ms = dict[str, Logits](), dict[str, float]()
    for text in tqdm(texts, desc=name, unit="text", disable=None):
        began = time.perf_counter()
        (logits[text],) = classifier.logits([text])
        ms[text] = (time.perf_counter() - began) * 1000
    return Recorded(logits, ms)


def texts_of(rows: Iterable[Row], system_weight: float) -> list[str]:
    """What the router reads of them, each text once."""
    found = dict.fromkeys(turn for row in rows for turn in row.words.turns)
    if system_weight:
        found |= dict.fromkeys(row.words.system for row in rows if row.words.system)
    return list(found)


@dataclass(frozen=True)
class Stage:
    """A classifier's record, and the scalars that make its logits probabilities."""

    recorded: Recorded
    temperature: float
    threshold: float

    @classmethod
    def of(cls, recorded: Recorded, calibration: Calibration) -> Stage:
        """With a calibration whose defaults are filled in."""
        return cls(recorded, calibration.temperature, calibration.threshold or 0.0)

    def scores(self, text: str, models: Sequence[str]) -> dict[str, float]:
        """Calibrated probabilities of a text that was recorded."""
        return probabilities(self.recorded.logits[text], models, self.temperature)

    def unsure(self, scores: Mapping[str, float]) -> bool:
        """As the router's own stage: no model reaches the threshold, the base included."""
        return max(scores.values()) < self.threshold


class Judge:
    """One classifier, or several in a row, the next asked while the last is unsure (`router.classify.scorer`)."""

    def __init__(self, stack: Stack, stages: Sequence[Stage]) -> None:
        self.models = (stack.base.name, *stack.adapters)
        self._system_weight = stack.router.system_weight
        self._stages = stages
        self._known: dict[str, tuple[int, dict[str, float]]] = {}

    def outcomes(self, rows: Sequence[Row], threshold: float | None = None) -> Outcomes:
        """Decide every row; `threshold` replaces the classifiers' own when it comes to choosing."""
        column = {model: index for index, model in enumerate(self.models)}
        decided = [self._decide(row, threshold) for row in rows]
        return Outcomes(
            label=np.array([column[row.label] for row in rows], np.int64),
            accepted=np.array([[model in row.accepted for model in self.models] for row in rows], np.bool_),
            scores=np.array([[scores[model] for model in self.models] for _, scores in decided], np.float64),
            chosen=np.array([column[decision.model] for decision, _ in decided], np.int64),
            confidence=np.array([decision.score for decision, _ in decided], np.float64),
        )

    def latencies(self) -> list[float]:
        """Milliseconds per text, over all classifiers that it has to ask."""
        texts = self._stages[0].recorded.ms
        return [sum(s.recorded.ms[text] for s in self._stages[: self._scores(text)[0] + 1]) for text in texts]

    def _decide(self, row: Row, threshold: float | None) -> tuple[Decision, Mapping[str, float]]:
        """As `router.decide` does when all adapters are served."""
        words = row.words
        judged = [self._scores(turn) for turn in words.turns]
        system = self._scores(words.system)[1] if words.system and self._system_weight else None
        if threshold is None:
            threshold = self._stages[judged[-1][0]].threshold
        rules = Rules(self.models[0], threshold, self._system_weight)
        return conclude(words, [scores for _, scores in judged], system, rules)

    def _scores(self, text: str) -> tuple[int, dict[str, float]]:
        """Which classifier has the word, and its probabilities."""
        if text not in self._known:
            index, scores = 0, self._stages[0].scores(text, self.models)
            while self._stages[index].unsure(scores) and index + 1 < len(self._stages):
                index += 1
                scores = self._stages[index].scores(text, self.models)
            self._known[text] = index, scores
        return self._known[text]

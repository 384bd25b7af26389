"""Figures of a classification: pure functions on arrays, one row per text and one column per model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

BINS = 15
"""Of the calibration error, as in Guo et al. (2017)."""

SMALLEST = 1e-12
"""A probability of zero would make one row's likelihood outweigh all others."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Outcomes:
    """What was decided for n rows among k models, the base in column 0.

    `label` [n]: the column that is right. `accepted` [n, k]: that one, and others that are right as well.
    `scores` [n, k]: probabilities. `chosen` [n]: the column that answers. `confidence` [n]: its score, which is
    what the router tells its clients; the calibration figures are about this number. Where nothing was scored, in
    time or at all, the base answers, and scores and confidence are NaN. `reason` [n]: the router's word for it.
    """

    label: Ints
    accepted: Bools
    scores: Floats
    chosen: Ints
    confidence: Floats
    reason: Strings

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: npt.NDArray[np.int64] | Bools) -> Outcomes:
        """The same, of some of the rows."""
        return Outcomes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def scored(self) -> Outcomes:
        """Those that have probabilities."""
        return self.take(~np.isnan(self.confidence))

    @property
    def correct(self) -> Bools:
        """[n] An accepted model answers."""
        right: Bools = self.accepted[np.arange(len(self)), self.chosen]
        return right

    @property
    def wrong(self) -> Bools:
        """[n] An adapter answers that should not: worse than the base, which at least does not pretend."""
        found: Bools = ~self.correct & (self.chosen != 0)
        return found

    @property
    def missed(self) -> Bools:
        """[n] The base answers in place of an adapter."""
        found: Bools = ~self.correct & (self.chosen == 0)
        return found

    @property
    def points(self) -> Floats:
        """[n] The utility: 1 for a right answer, 0 for the base in place of an adapter, -1 for a wrong adapter."""
        points: Floats = self.correct.astype(np.float64) - self.wrong
        return points


def among_adapters(outcomes: Outcomes) -> Bools:
    """Of the rows that need an adapter: is the most probable adapter right, the base left out of the choice?"""
    needing = ~outcomes.accepted[:, 0]
    best = 1 + outcomes.scores[needing][:, 1:].argmax(axis=1)
    right: Bools = outcomes.accepted[needing][np.arange(len(best)), best]
    return right


def confusion(outcomes: Outcomes) -> Ints:
    """[k, k] Rows per label (down) and per model that answered (across)."""
    models = outcomes.scores.shape[1]
    flat = np.bincount(outcomes.label * models + outcomes.chosen, minlength=models * models)
    return flat.reshape(models, models).astype(np.int64)


def precision(outcomes: Outcomes, model: int) -> float | None:
    """Of the rows that a model answered, the share that it should; None where it answered none."""
    answered = outcomes.chosen == model
    return float(outcomes.correct[answered].mean()) if answered.any() else None


def nll(outcomes: Outcomes) -> Floats:
    """[n] Negative log-likelihood in nats; what is accepted counts together."""
    right = (outcomes.scores * outcomes.accepted).sum(axis=1)
    losses: Floats = -np.log(np.clip(right, SMALLEST, 1))
    return losses


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence, and how often they were right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def equal_width(confidence: Floats, correct: Bools, bins: int = BINS) -> list[Bin]:
    """Bins of one width over [0, 1]: the reliability diagram."""
    return _binned(confidence, correct, np.linspace(0, 1, bins + 1))


def equal_mass(confidence: Floats, correct: Bools, bins: int = BINS) -> list[Bin]:
    """Bins of equally many rows (Nixon et al., 2019): crowded confidences are told apart, ties stay together."""
    edges: Floats = np.quantile(confidence, np.linspace(0, 1, bins + 1)).astype(np.float64)
    return _binned(confidence, correct, edges)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, bins weighted by their rows."""
    rows = sum(each.rows for each in bins)
    return sum(each.rows * abs(each.accuracy - each.confidence) for each in bins) / rows


def ece(outcomes: Outcomes) -> float:
    """The headline: 15 bins of equal width (Guo et al., 2017)."""
    return calibration_error(equal_width(outcomes.confidence, outcomes.correct))


def ece_equal_mass(outcomes: Outcomes) -> float:
    """Beside the headline: 15 bins of equally many rows."""
    return calibration_error(equal_mass(outcomes.confidence, outcomes.correct))


def _binned(confidence: Floats, correct: Bools, edges: Floats) -> list[Bin]:
    """Each bin without its lower edge; empty ones are left out."""
    which = np.digitize(confidence, edges[1:-1], right=True)
    found = []
    for index in np.unique(which):
        inside = which == index
        low, high = float(edges[index]), float(edges[index + 1])
        rows = int(inside.sum())
        found.append(Bin(low, high, rows, float(confidence[inside].mean()), float(correct[inside].mean())))
    return found

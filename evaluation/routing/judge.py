"""What the router would decide for each row, by the router's own functions, from logits that are computed once.

A text on which a classifier fails, or is late, is decided as the router decides it: the base answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from adapters import Calibration, ConfigError, Stack
from evaluation.kept import Kept, digest
from evaluation.routing.metrics import Outcomes
from evaluation.routing.rows import Row
from evaluation.table import clipped
from router.choose import Decision, Policy, Reason
from router.classify import Classifier, Logits
from router.classify.scorer import Judged, first_sure
from router.conversation import Rules, conclude

WARM_UP = "How are you?"

AGAIN_AFTER_S = 1.0
"""As long as `scoring` leaves a silent engine alone: until then all texts fail, and in no time."""

ERROR_LENGTH = 300


@dataclass(frozen=True)
class Recorded:
    """A classifier's logits of every text, and the milliseconds that each took; of the others, what failed."""

    logits: Mapping[str, Logits]
    ms: Mapping[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)


class Memory:
    """What was judged already, for a run that goes on where another was cut off. It holds no word of the data."""

    def __init__(self, kept: Kept, *made_of: object) -> None:
        """`made_of`: all that logits depend on besides classifier and text, as JSON knows it."""
        self._kept, self._made_of = kept, digest(*made_of)

    def get(self, name: str, text: str) -> tuple[Logits, float] | None:
        """The logits, and the milliseconds that they took."""
        found = self._kept.get(digest(self._made_of, name, text))
        return found and (found["logits"], found["ms"])

    def put(self, name: str, text: str, logits: Logits, ms: float) -> None:
        """Raises ConfigError when the disk is full."""
        numbers = {model: float(logit) for model, logit in logits.items()}
        self._kept.put(digest(self._made_of, name, text), {"logits": numbers, "ms": ms})


def record(name: str, classifier: Classifier, texts: Sequence[str], memory: Memory | None = None) -> Recorded:
    """Judge every text once, and alone, as the router does while no other waits: that is also what is timed.

    On a CPU a batch gains nothing, and in one of 32 an int8 graph, which scales its activations over the whole
    batch, decided 1 % of the texts differently. Texts that failed are judged once more when the others are done.
    Raises ConfigError for a classifier that does not work at all.
    """
    try:
        classifier.logits([WARM_UP])  # the first call is also slower than all that follow
    except Exception as error:
        raise ConfigError(f"router.classifier: {name} does not work: {_line(error)}") from None
    known = {text: found for text in texts if memory and (found := memory.get(name, text))}
    logits, ms = (
        {text: found[0] for text, found in known.items()},
        {text: found[1] for text, found in known.items()},
    )
    failed = dict[str, str]()

    def judge(some: Sequence[str]) -> None:
        for text in tqdm(some, desc=name, unit="text", disable=None):
            began = time.perf_counter()
            try:
                (logits[text],) = classifier.logits([text])
            except Exception as error:
                failed[text] = _line(error)
            else:
                ms[text] = (time.perf_counter() - began) * 1000
                failed.pop(text, None)
                if memory:
                    memory.put(name, text, logits[text], ms[text])

    judge([text for text in texts if text not in known])
    if failed:
        time.sleep(AGAIN_AFTER_S)
        judge(list(failed))
    return Recorded(logits, ms, failed)


def _line(error: Exception) -> str:
    return clipped(f"{type(error).__name__}: {error}", ERROR_LENGTH)


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


class Judge:
    """One classifier, or several in a row, the next asked while the last is unsure (`router.classify.scorer`).

    A text that takes them longer than `timeout_s`, the stack's own if it is None, is late.
    """

    def __init__(self, stack: Stack, stages: Sequence[Stage], timeout_s: float | None = None) -> None:
        self.models = (stack.base.name, *stack.adapters)
        self._system_weight = stack.router.system_weight
        self._stages = stages
        self._timeout_ms = 1000 * (stack.router.classify_timeout_s if timeout_s is None else timeout_s)
        self._known: dict[str, Judged | None] = {}

    def outcomes(self, rows: Sequence[Row], threshold: float | None = None) -> Outcomes:
        """Decide every row; `threshold` replaces the classifiers' own when it comes to choosing."""
        column = {model: index for index, model in enumerate(self.models)}
        decided = [self._decide(row, threshold) for row in rows]
        return Outcomes(
            label=np.array([column[row.label] for row in rows], np.int64),
            accepted=np.array([[model in row.accepted for model in self.models] for row in rows], np.bool_),
            scores=np.array([[scores.get(model) for model in self.models] for _, scores in decided], np.float64),
            chosen=np.array([column[decision.model] for decision, _ in decided], np.int64),
            confidence=np.array([decision.score for decision, _ in decided], np.float64),
            reason=np.array([decision.reason for decision, _ in decided], np.str_),
        )

    def latencies(self) -> list[float]:
        """Milliseconds per text, over all classifiers that it has to ask; without those that one failed on."""
        return [judged.ms for text in self._stages[0].recorded.ms if (judged := self._judge(text))]

    def _decide(self, row: Row, threshold: float | None) -> tuple[Decision, Mapping[str, float]]:
        """As `router.decide` does when all adapters are served and no text is known.

        An unsure one is the base's, whoever answers it (`router.unsure`): here is measured what was chosen.
        """
        words = row.words
        with_system = bool(words.system and self._system_weight)
        texts = [*words.turns, words.system] if with_system else words.turns
        judged = [one for text in texts if (one := self._judge(text))]
        if len(judged) < len(texts):
            return Decision(self.models[0], None, Reason.CLASSIFIER_ERROR), {}
        if max(one.ms for one in judged) > self._timeout_ms:
            return Decision(self.models[0], None, Reason.CLASSIFIER_TIMEOUT), {}
        turns, system = (judged[:-1], judged[-1].scores) if with_system else (judged, None)
        policy = Policy(self.models[0], turns[-1].threshold if threshold is None else threshold)
        return conclude(words, [turn.scores for turn in turns], system, Rules(policy, self._system_weight))

    def _judge(self, text: str) -> Judged | None:
        """As the router's scorer, from what is recorded; None where a classifier that had to be asked failed."""
        if text not in self._known:
            found = first_sure(self._stages, self._recorded(text), self.models)
            self._known[text] = found and self._judged(text, *found)
        return self._known[text]

    def _recorded(self, text: str) -> Iterator[Logits]:
        for stage in self._stages:
            if (logits := stage.recorded.logits.get(text)) is None:
                return
            yield logits

    def _judged(self, text: str, index: int, scores: Mapping[str, float]) -> Judged:
        ms = sum(stage.recorded.ms[text] for stage in self._stages[: index + 1])
        return Judged(scores, self._stages[index].threshold, ms, cached=False)

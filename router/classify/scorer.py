"""From a text to probabilities: one classifier, or several in a row, the next asked while the last is unsure."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adapters import Calibration, ClassifierName, Stack, labels
from router.choose import probabilities
from router.classify import Classifier, Logits
from router.classify.batcher import Batcher, Bounds


@dataclass(frozen=True)
class Judged:
    """Probabilities of the candidates, best first; the threshold of the classifier that gave them; how long they
    were waited for (ms); whether all was known."""

    scores: Mapping[str, float]
    threshold: float
    ms: float
    cached: bool


@dataclass(frozen=True)
class Stage:
    """A classifier with the scalars that make its logits probabilities."""

    batcher: Batcher
    temperature: float
    threshold: float

    def scores(self, logits: Logits, candidates: Iterable[str]) -> dict[str, float]:
        """Calibrated probabilities of the candidates."""
        return probabilities(logits, candidates, self.temperature)

    def unsure(self, scores: Mapping[str, float]) -> bool:
        """No candidate, the base included, reaches the threshold."""
        return max(scores.values(), default=1.0) < self.threshold


class Scorer:
    """The stack's classifiers behind one question. The last one's threshold is the one that decides."""

    def __init__(self, stages: Sequence[Stage], timeout_s: float) -> None:
        self._stages = stages
        self._timeout_s = timeout_s

    @classmethod
    def of(cls, stack: Stack, classifiers: Mapping[ClassifierName, Classifier]) -> Scorer:
        """As `router` of the stack says."""
        router = stack.router
        bounds = Bounds(
            router.batch_size, router.batch_wait_ms / 1000, router.classify_timeout_s, router.cache_entries
        )
        stages = []
        for name, classifier in classifiers.items():
            calibration: Calibration = router.calibrated(name)
            batcher = Batcher(classifier, bounds, digest(stack, name))
            stages.append(Stage(batcher, calibration.temperature, calibration.threshold or 0.0))
        return cls(stages, router.classify_timeout_s)

    async def judge(self, texts: Sequence[str], candidates: Sequence[str]) -> list[Judged]:
        """All texts of one request, within the time of one. Raises TimeoutError or ClassifierError."""
        known = [self._known(text, candidates) for text in texts]
        if None not in known:
            return [one for one in known if one]
        async with asyncio.timeout(self._timeout_s):
            return list(await asyncio.gather(*(self._ask(text, candidates) for text in texts)))

    def close(self) -> None:
        """End the worker threads."""
        for stage in self._stages:
            stage.batcher.close()

    def _known(self, text: str, candidates: Sequence[str]) -> Judged | None:
        """The answer without waiting, where every stage that is needed for it is cached."""
        for stage in self._stages:
            if (logits := stage.batcher.known(text)) is None:
                return None
            scores = stage.scores(logits, candidates)
            if stage is self._stages[-1] or not stage.unsure(scores):
                return Judged(scores, stage.threshold, 0.0, cached=True)
        return None

    async def _ask(self, text: str, candidates: Sequence[str]) -> Judged:
        began, cached = time.perf_counter(), True
        scores, threshold = dict[str, float](), 0.0
        for stage in self._stages:
            if (logits := stage.batcher.known(text)) is None:
                cached, logits = False, await stage.batcher.logits(text)
            scores, threshold = stage.scores(logits, candidates), stage.threshold
            if not stage.unsure(scores):
                break
        ms = 0.0 if cached else (time.perf_counter() - began) * 1000
        return Judged(scores, threshold, ms, cached)


def digest(stack: Stack, name: ClassifierName) -> bytes:
    """Names everything that a classifier's logits depend on beside the text."""
    parts = [name, stack.router.weights(name) or "", stack.base.name]
    parts += [f"{adapter}={label.text}" for adapter, label in labels(stack).items()]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()

"""From a text to probabilities: one classifier, or several in a row, the next asked while the last is unsure."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from adapters import ClassifierName, Stack, labels
from router.choose import probabilities
from router.classify import Classifier, Logits
from router.classify.batcher import Batcher, Bounds


@dataclass(frozen=True)
class Judged:
    """Probabilities of the candidates, best first; the threshold of the classifier that gave them; how long they
    were waited for (ms); whether all was known; what `signature` says of them; `by` which classifier."""

    scores: Mapping[str, float]
    threshold: float
    ms: float
    cached: bool
    signature: str | None = None
    by: str = ""


class Calibrated(Protocol):
    """The scalars that make a classifier's logits probabilities, and say when it is sure."""

    @property
    def temperature(self) -> float: ...
    @property
    def threshold(self) -> float: ...


@dataclass(frozen=True)
class Stage:
    """A classifier of the chain, calibrated."""

    batcher: Batcher
    temperature: float
    threshold: float
    signature: str | None = None
    name: str = ""


def first_sure(
    chain: Sequence[Calibrated], logits: Iterable[Logits], candidates: Sequence[str]
) -> tuple[int, dict[str, float]] | None:
    """Whose word counts, and its probabilities of the candidates: the first that is sure, or else the last.

    Sure is who gives any candidate, the base included, its threshold. `logits` are those of the chain's first
    classifiers, as far as they are known; None: the next one has to be asked.
    """
    for index, (one, known) in enumerate(zip(chain, logits, strict=False)):
        scores = probabilities(known, candidates, one.temperature)
        if index + 1 == len(chain) or max(scores.values(), default=1.0) >= one.threshold:
            return index, scores
    return None


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
        stages, names = list[Stage](), tuple(classifiers)
        for place, (name, classifier) in enumerate(classifiers.items(), 1):
            calibration = router.calibrated(name)
            own = bounds if classifier.batches else replace(bounds, size=1)
            batcher = Batcher(classifier, own, digest(stack, name))
            signed = signature(stack, names[:place])
            stages.append(Stage(batcher, calibration.temperature, calibration.threshold or 0.0, signed, name))
        return cls(stages, router.classify_timeout_s)

    @property
    def thresholds(self) -> dict[str, float]:
        """By classifier, in the order in which they are asked."""
        return {stage.name: stage.threshold for stage in self._stages}

    def under(self, thresholds: Mapping[str, float]) -> Scorer:
        """The same classifiers, with all that they know by now, as they would choose under other thresholds."""
        stages = [
            replace(stage, threshold=thresholds.get(stage.name, stage.threshold), signature=None)
            for stage in self._stages
        ]
        return Scorer(stages, self._timeout_s)

    async def judge(self, texts: Sequence[str], candidates: Sequence[str]) -> list[Judged]:
        """All texts of one request, within the time of one. Raises TimeoutError or ClassifierError."""
        known = [self._known(text, candidates) for text in texts]
        if None not in known:
            return [one for one in known if one]
        return list(await asyncio.gather(*(self._ask(text, candidates) for text in texts)))

    def close(self) -> None:
        """End the worker threads."""
        for stage in self._stages:
            stage.batcher.close()

    def _known(self, text: str, candidates: Sequence[str]) -> Judged | None:
        """The answer without waiting, where every stage that is needed for it is cached."""
        found = first_sure(self._stages, self._cached(text), candidates)
        return found and self._judged(*found, 0.0, cached=True)

    def _cached(self, text: str) -> Iterator[Logits]:
        """Of the first stages, as many as have it."""
        for stage in self._stages:
            if (logits := stage.batcher.known(text)) is None:
                return
            yield logits

    async def _ask(self, text: str, candidates: Sequence[str]) -> Judged:
        if known := self._known(text, candidates):
            return known
        began, logits = time.perf_counter(), list[Logits]()
        # Of each text, for gather lets the others run on where one fails.
        async with asyncio.timeout(self._timeout_s):
            while (found := first_sure(self._stages, logits, candidates)) is None:
                logits.append(await self._stages[len(logits)].batcher.logits(text))
        ms = (time.perf_counter() - began) * 1000
        return self._judged(*found, ms, cached=False)

    def _judged(self, index: int, scores: Mapping[str, float], ms: float, cached: bool) -> Judged:
        stage = self._stages[index]
        return Judged(scores, stage.threshold, ms, cached, stage.signature, stage.name)


def digest(stack: Stack, name: ClassifierName) -> bytes:
    """Names everything that a classifier's logits depend on beside the text."""
    parts = [name, stack.router.weights(name) or "", stack.base.name]
    parts += [f"{adapter}={label.text}" for adapter, label in labels(stack).items()]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


def signature(stack: Stack, names: Sequence[ClassifierName]) -> str:
    """What probabilities depend on beside the texts, where the last of these classifiers gave them: JSON for the
    decision log, so that they can be replayed under other settings."""
    chain = []
    for name in names:
        scalars = stack.router.calibrated(name)
        chain.append(
            {
                "classifier": name,
                "digest": digest(stack, name).hex(),
                "temperature": scalars.temperature,
                "threshold": scalars.threshold or 0.0,
            }
        )
    return orjson.dumps({"chain": chain, "system_weight": stack.router.system_weight}).decode()

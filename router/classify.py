"""Zero-shot classifiers behind one protocol, and the scorer that keeps them off the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from adapters import Stack

TIMEOUT_S = 2.0
RECENT = 0.2
"""Weight of the newest text in the running mean of how long one takes."""

Logits = Mapping[str, float]

log = logging.getLogger(__name__)


class Classifier(Protocol):
    """Judges texts from the adapters' labels alone. Called from one worker thread, never concurrently."""

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Per text, a logit for every adapter and one for the base: a softmax makes them probabilities."""


class ClassifierError(Exception):
    """A text could not be judged: the classifier failed on it, or too many texts wait."""


@dataclass(frozen=True)
class Judged:
    """A text's logits, how long the client waited for them (ms), and whether they were known already."""

    logits: Logits
    ms: float
    cached: bool


class Scorer:
    """Cached, single-flight and bounded access to a classifier from the event loop."""

    def __init__(self, classifier: Classifier, cache_entries: int) -> None:
        self._classifier = classifier
        self._cache: OrderedDict[str, Logits] = OrderedDict()
        self._cache_entries = cache_entries
        self._running: dict[str, asyncio.Task[Logits]] = {}
        self._usual_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    async def judge(self, text: str) -> Judged:
        """Raises TimeoutError or ClassifierError."""
        began = time.perf_counter()
        if (known := self._cache.get(text)) is not None:
            self._cache.move_to_end(text)
            return Judged(known, 0.0, cached=True)
        task = self._running.get(text)
        if task is None:
            if len(self._running) * self._usual_s > TIMEOUT_S:
                raise ClassifierError(f"{len(self._running)} texts are waiting, more than can be judged in time")
            task = self._running[text] = asyncio.create_task(self._classify(text))
            task.add_done_callback(lambda done: self._finished(text, done))
        # Shielded: others may wait for the same text when this client goes away.
        logits = await asyncio.wait_for(asyncio.shield(task), TIMEOUT_S)
        return Judged(logits, (time.perf_counter() - began) * 1000, cached=False)

    def close(self) -> None:
        """End the worker thread after the text that it is judging."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _timed(self, text: str) -> Logits:
        began = time.perf_counter()
        (logits,) = self._classifier.logits([text])
        self._usual_s += RECENT * (time.perf_counter() - began - self._usual_s)
        return logits

    def _finished(self, text: str, task: asyncio.Task[Logits]) -> None:
        self._running.pop(text, None)
        if not task.cancelled():
            task.exception()  # read here, or asyncio complains when every client has gone meanwhile

    async def _classify(self, text: str) -> Logits:
        loop = asyncio.get_running_loop()
        try:
            logits = await loop.run_in_executor(self._thread, self._timed, text)
        except Exception as error:
            log.exception("the classifier failed on a text of %d characters", len(text))
            raise ClassifierError(str(error)) from error
        self._cache[text] = logits
        while len(self._cache) > self._cache_entries:
            self._cache.popitem(last=False)
        return logits


def load_classifier(stack: Stack) -> Classifier:
    """The classifier that the stack names. Raises ConfigError when its weights cannot be had."""
    labels = {name: adapter.label for name, adapter in stack.adapters.items()}
    if stack.router.classifier == "nli":
        from router.nli import NliClassifier

        return NliClassifier.load(stack, labels)
    from router.embedding import EmbeddingClassifier

    return EmbeddingClassifier.load(stack, labels)

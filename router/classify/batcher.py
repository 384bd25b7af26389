"""One classifier, off the event loop: cached, single-flight, micro-batched and bounded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from statistics import median_low

from cachetools import LRUCache

from router.classify import Classifier, Logits

RECENT = 9
"""Batches whose median tells how long one text takes. A mean would believe in a pause: where the engine has all
cores for half a second, the text that was being judged seems to have taken so long, and the next are refused."""

MOST_WAITING = 1000
"""Texts that wait or are judged just now. Fewer where they would take longer than `Bounds.timeout_s`, but how long
one takes is known only when the first batch has ended."""

log = logging.getLogger(__name__)


class ClassifierError(Exception):
    """A text could not be judged: the classifier failed on it, or too many texts wait."""


@dataclass(frozen=True)
class Bounds:
    """How texts wait: at most `size` in a batch, `wait_s` for company, `timeout_s` in all."""

    size: int
    wait_s: float
    timeout_s: float
    cache_entries: int


@dataclass
class Question:
    """A text that is not judged yet, and how many wait for it."""

    text: str
    answer: asyncio.Future[Logits]
    askers: int = 0


class Batcher:
    """Access to a classifier from one event loop. `digest` names what its answers depend on, beside the text."""

    def __init__(self, classifier: Classifier, bounds: Bounds, digest: bytes = b"") -> None:
        self._classifier = classifier
        self._bounds = bounds
        self._digest = digest
        self._cache: LRUCache[bytes, Logits] = LRUCache(bounds.cache_entries)
        self._waiting: dict[bytes, Question] = {}
        self._judging: dict[bytes, Question] = {}
        self._worker: asyncio.Task[None] | None = None
        self._took_s: deque[float] = deque(maxlen=RECENT)
        self._usual_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    def known(self, text: str) -> Logits | None:
        """What the cache holds of a text."""
        logits: Logits | None = self._cache.get(self._key(text))
        return logits

    async def logits(self, text: str) -> Logits:
        """Known, or judged once for all that ask for the text now. Raises ClassifierError."""
        if (known := self.known(text)) is not None:
            return known
        key = self._key(text)
        question = self._judging.get(key) or self._waiting.get(key) or self._queue(key, text)
        question.askers += 1
        try:
            # Shielded: others may wait for the same text when this client goes away.
            return await asyncio.shield(question.answer)
        finally:
            question.askers -= 1
            # After a failure the same text may have been asked again: another question.
            if not question.askers and self._waiting.get(key) is question:
                del self._waiting[key]

    def close(self) -> None:
        """End the worker thread after the batch that it is judging."""
        if self._worker:
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _key(self, text: str) -> bytes:
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._digest).digest()

    def _queue(self, key: bytes, text: str) -> Question:
        ahead = len(self._waiting) + len(self._judging)
        if ahead >= MOST_WAITING or ahead * self._usual_s > self._bounds.timeout_s:
            raise ClassifierError(f"{ahead} texts are waiting, more than can be judged in time")
        question = self._waiting[key] = Question(text, asyncio.get_running_loop().create_future())
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return question

    async def _work(self) -> None:
        """Batch after batch until nobody waits. Where several wait, others get a moment to join; a lone text never
        waits for company.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                if 1 < len(self._waiting) < self._bounds.size:
                    await asyncio.sleep(self._bounds.wait_s)
                if not self._waiting:
                    return
                batch = self._judging = dict(islice(self._waiting.items(), self._bounds.size))
                for key in batch:
                    del self._waiting[key]
                texts = [question.text for question in batch.values()]
                results = await loop.run_in_executor(self._thread, self._classify, texts)
                self._judging = {}
                for (key, question), result in zip(batch.items(), results, strict=True):
                    self._answer(key, question.answer, result)
        finally:
            self._worker = None

    def _classify(self, texts: list[str]) -> list[Logits | Exception]:
        """In the worker thread. Where a batch fails, each of its texts is judged alone."""
        began = time.perf_counter()
        results: list[Logits | Exception]
        try:
            results = list(self._classifier.logits(texts))
            if len(results) != len(texts):
                raise ValueError(f"{len(results)} answers to {len(texts)} texts")
        except Exception as error:
            if len(texts) > 1:
                return [self._classify([text])[0] for text in texts]
            log.warning("the classifier failed on a text: %s: %s", type(error).__name__, error)
            results = [error]
        self._took_s.append((time.perf_counter() - began) / len(texts))
        self._usual_s = median_low(self._took_s)
        return results

    def _answer(self, key: bytes, answer: asyncio.Future[Logits], result: Logits | Exception) -> None:
        if isinstance(result, Exception):
            answer.set_exception(ClassifierError(str(result)))
            answer.exception()  # read here, or asyncio complains when every client has gone meanwhile
            return
        answer.set_result(result)
        if self._cache.maxsize:
            self._cache[key] = result

"""One classifier, off the event loop: cached, single-flight, micro-batched and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b

from cachetools import LRUCache

from router.classify import Classifier, Logits

RECENT = 0.2
"""Weight of the newest batch in the running mean of how long one text takes."""

log = logging.getLogger(__name__)


class ClassifierError(Exception):
    """A text could not be judged: the classifier failed on it, or too many texts wait."""


@dataclass(frozen=True)
class Bounds:
    """How texts wait: at most `size` in a batch, `wait_s` for company, `timeout_s` in all."""

    size: int = 16
    wait_s: float = 0.002
    timeout_s: float = 2.0
    cache_entries: int = 10_000


class Batcher:
    """Access to a classifier from one event loop. `digest` names what its answers depend on, beside the text."""

    def __init__(self, classifier: Classifier, bounds: Bounds, digest: bytes = b"") -> None:
        self._classifier = classifier
        self._bounds = bounds
        self._digest = digest
        self._cache: LRUCache[bytes, Logits] = LRUCache(bounds.cache_entries)
        self._running: dict[bytes, asyncio.Future[Logits]] = {}
        self._waiting: list[tuple[bytes, str]] = []
        self._worker: asyncio.Task[None] | None = None
        self._crowded = False
        self._usual_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    def known(self, text: str) -> Logits | None:
        """What the cache holds of a text."""
        logits: Logits | None = self._cache.get(self._key(text))
        return logits

    async def logits(self, text: str) -> Logits:
        """A text that is not known yet; equal texts are judged once. Raises ClassifierError."""
        key = self._key(text)
        answer = self._running.get(key)
        if answer is None:
            if len(self._running) * self._usual_s > self._bounds.timeout_s:
                raise ClassifierError(f"{len(self._running)} texts are waiting, more than can be judged in time")
            answer = self._running[key] = asyncio.get_running_loop().create_future()
            self._waiting.append((key, text))
            if self._worker is None:
                self._worker = asyncio.create_task(self._work())
        # Shielded: others may wait for the same text when this client goes away.
        return await asyncio.shield(answer)

    def close(self) -> None:
        """End the worker thread after the batch that it is judging."""
        if self._worker:
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _key(self, text: str) -> bytes:
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._digest).digest()

    async def _work(self) -> None:
        """Batch after batch until nobody waits. A lone text never waits for company."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if self._crowded and len(self._waiting) < self._bounds.size:
                    await asyncio.sleep(self._bounds.wait_s)
                batch, self._waiting = self._waiting[: self._bounds.size], self._waiting[self._bounds.size :]
                self._crowded = len(batch) > 1
                results = await loop.run_in_executor(self._thread, self._classify, [text for _, text in batch])
                for (key, _), result in zip(batch, results, strict=True):
                    self._answer(key, result)
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
        self._usual_s += RECENT * ((time.perf_counter() - began) / len(texts) - self._usual_s)
        return results

    def _answer(self, key: bytes, result: Logits | Exception) -> None:
        answer = self._running.pop(key)
        if isinstance(result, Exception):
            answer.set_exception(ClassifierError(str(result)))
            answer.exception()  # read here, or asyncio complains when every client has gone meanwhile
            return
        with contextlib.suppress(asyncio.InvalidStateError):
            answer.set_result(result)
        if self._cache.maxsize:
            self._cache[key] = result

"""The adapters that may be routed to just now: the manager's, or without one those of adapters.yaml."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from adapters import DATA_FREE, Adapter, ClassifierName, Lag, Stack, labels
from router.classify import Relabelling
from router.classify.scorer import Scorer
from router.manager import Manager, ManagerError
from router.tags import Tags

AGAIN_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Among:
    """Whom a request may be answered by: the base and its candidates, and the virtual model where it is unsure."""

    candidates: tuple[str, ...]
    unsure: str | None = None


Asked = tuple[bytes, Among]
"""What a decision depends on: the digest of a request's words, and who may answer."""


@dataclass(frozen=True, eq=False)
class Lineup:
    """Adapters as they were at one moment, and what is made from them; replaced as a whole.

    `up` has the version of everything that may have traffic, by the name that the engine knows it under; that of a
    virtual model changes with its library.
    """

    stack: Stack
    scorer: Scorer
    up: Mapping[str, str]
    tags: Tags
    decided: LRUCache[Asked, Any]

    @classmethod
    def of(cls, stack: Stack, scorer: Scorer, up: Mapping[str, str]) -> Lineup:
        """With tags and an empty memory of decisions."""
        return cls(stack, scorer, up, Tags(stack.adapters), LRUCache(stack.router.cache_entries))


class Roster:
    """`lineup` is what holds now; `problem` says why nothing can be routed yet, or is empty."""

    def __init__(
        self, stack: Stack, classifiers: Mapping[ClassifierName, Relabelling], manager: Manager | None
    ) -> None:
        self._classifiers, self._manager = dict(classifiers), manager
        up = {} if manager else dict.fromkeys((*stack.parts, *stack.lag), "")
        self.lineup = Lineup.of(stack, Scorer.of(stack, classifiers), up)
        self._made_for = self._asked_for(stack, up)
        self.problem = "the adapters are being loaded" if manager else ""

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Keep up with the manager until cancelled; `changed` is awaited after every change.

        The manager is asked again when that is done, which tells it that nobody here goes by the old state.
        """
        generation = -1
        while self._manager:
            try:
                news = await self._manager.changes(generation)
                await changed()  # what is told to be up, is listed before it is chosen
                await self._take(news)
                await changed()  # and what is told as a problem, is known
                generation = news["generation"]
            except Exception as error:  # whatever it is, somebody must go on looking
                expected = isinstance(error, ManagerError)
                log.log(logging.WARNING if expected else logging.ERROR, "no news of the adapters: %r", error)
                await asyncio.sleep(AGAIN_S)

    def close(self) -> None:
        """End the classifiers' threads."""
        self.lineup.scorer.close()

    async def _take(self, news: Mapping[str, Any]) -> None:
        old = self.lineup
        adapters = {name: Adapter(**keys) for name, keys in news["adapters"].items()}
        lag = {name: Lag(**keys) for name, keys in news["lag"].items()}
        stack = old.stack.model_copy(update={"adapters": adapters, "lag": lag})
        self.lineup = Lineup.of(stack, old.scorer, news["up"])  # at once; new words may take a while
        awaited = ", ".join(news["awaited"]) or "the engine is not up"
        self.problem = "" if news["settled"] else f"adapters are being loaded: {awaited}"
        words, _ = asked = self._asked_for(stack, news["up"])
        if words and asked != self._made_for:
            self._classifiers = await asyncio.to_thread(self._relabelled, words)
            self._made_for = asked  # where it fails, it is tried again
            self.lineup = Lineup.of(stack, Scorer.of(stack, self._classifiers), news["up"])
            # Who asked the old one has an answer, or has given up, by then.
            asyncio.get_running_loop().call_later(2 * stack.router.classify_timeout_s, old.scorer.close)

    def _asked_for(self, stack: Stack, up: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """What classifiers depend on: the labels; and the weights, where one goes by them."""
        words = {name: label.text for name, label in labels(stack).items()}
        return words, dict(up) if DATA_FREE in self._classifiers else {}

    def _relabelled(self, words: Mapping[str, str]) -> dict[ClassifierName, Relabelling]:
        return {name: classifier.relabelled(words) for name, classifier in self._classifiers.items()}

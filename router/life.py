"""What is known of a request when it has ended: metrics, decision log and traces are made from this alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from router.access import ANYONE, Client
from router.decide import Routed

GATHER_S = 0.02

GONE = 499
"""The status, nginx's, under which a request is counted whose client went away."""

LEFT = (GONE, 504)
"""Of answers that were left before they could tell what they took."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Life:
    """One request, filled in on its way.

    `admitted`: its key is known and had budget left. `charged`: the tokens that its prompt may hold.
    `at` is in Unix seconds, `began` of the performance counter; the other times are seconds since then.
    """

    endpoint: str
    request_id: str
    traceparent: str | None = None
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    client: Client = ANYONE
    admitted: bool = False
    charged: int = 0
    routed: Routed | None = None
    status: int = 0
    error: str | None = None
    first_byte_s: float | None = None
    duration_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    events: int = 0
    cache: str | None = None

    @property
    def tokens(self) -> int:
        """Read and written. Where a stream, or an answer that was left, did not tell: its prompt is what was
        charged for it, and each event a token."""
        untold = self.charged if self.events or self.status in LEFT else 0
        return (untold if self.prompt_tokens is None else self.prompt_tokens) + (
            self.completion_tokens or self.events
        )

    def answering(self) -> None:
        """The first byte of the answer is on its way."""
        if self.first_byte_s is None:
            self.first_byte_s = time.perf_counter() - self.began

    def end(self) -> None:
        """Nothing follows."""
        self.duration_s = time.perf_counter() - self.began


@dataclass
class Occupancy:
    """What this process is busy with (`with occupancy:` is one request more), and whether it takes on more."""

    in_flight: int = 0
    draining: bool = False

    def __enter__(self) -> None:
        self.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1


class Observer(Protocol):
    """Is shown every request that has ended."""

    def ended(self, lives: Sequence[Life]) -> None:
        """After the last byte, an error, or the client's leaving (status 499)."""


class Ledger:
    """Shows requests to the observers a few at a time.

    In a row they cost half of what they cost one by one between other work, and no answer waits for them.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._ended: list[Life] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, life: Life) -> None:
        """A request that has ended."""
        self._ended.append(life)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.show)

    def show(self) -> None:
        """What has not been shown."""
        self._timer = None
        lives, self._ended = self._ended, []
        for observer in self._observers:
            try:
                observer.ended(lives)
            except Exception:
                log.exception("%s failed on %d requests", type(observer).__name__, len(lives))

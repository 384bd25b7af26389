"""What the router counted over the last minutes: kept on this side, so that a reload keeps the curves."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace

import openai

from ui.client.admin import AdminError
from ui.client.curves import Point, point
from ui.client.metrics import Sample, read

EVERY_S = 2.0
KEPT_S = 300.0
CLOSED = (401, 403)


@dataclass(frozen=True)
class View:
    """Oldest first; `problem` says why the newest is not of just now, `closed` that a key is needed."""

    samples: tuple[Sample, ...] = ()
    points: tuple[Point, ...] = ()
    problem: str = ""
    closed: bool = False


class History:
    """Of one router. It is asked only while somebody looks, and however many look, once in `EVERY_S`."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self._kept: deque[tuple[Sample, Point]] = deque(maxlen=int(2 * KEPT_S / EVERY_S))
        self._one = asyncio.Lock()
        self._views: dict[str, tuple[float, View]] = {}

    async def look(self, key: str) -> View:
        """As `key` may see it ("": as anybody may). What one may see, another one with the same key sees, too."""
        async with self._one:
            asked, view = self._views.get(key, (0.0, View()))
            if time.time() - asked >= EVERY_S * 0.9:
                view = await self._ask(key, view)
                self._views[key] = time.time(), view
            return view

    async def _ask(self, key: str, known: View) -> View:
        try:
            sample = await read(self._client, key)
        except AdminError as error:
            closed = error.status in CLOSED
            return View(problem=str(error), closed=True) if closed else replace(known, problem=str(error))
        recent = [kept for kept in self._kept if sample.at - kept[0].at <= KEPT_S]
        samples = (*(one for one, _ in recent), sample)
        self._kept.append((sample, point(samples)))
        return View(samples, (*(one for _, one in recent), self._kept[-1][1]))

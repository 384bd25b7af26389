"""The response cache: exactly the same request at temperature 0 is answered from memory. Off by default."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cachetools import TTLCache

from router.endpoints import Endpoint

OVERHEAD = 512
"""Bytes that an entry takes beside its body."""

LARGEST = 0.25
"""Of the cache, for one answer."""


@dataclass(frozen=True)
class Stored:
    """An answer of status 200."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class ResponseCache:
    """Bounded by bytes and by age; the oldest used goes first."""

    def __init__(self, max_mb: float, ttl_s: float) -> None:
        self._limit = int(max_mb * 2**20)
        self._entries: TTLCache[bytes, Stored] = TTLCache(
            self._limit, ttl_s, getsizeof=lambda stored: len(stored.body) + OVERHEAD
        )

    def key(self, endpoint: Endpoint, body: Mapping[str, Any], hide_usage: bool, version: str) -> bytes | None:
        """Of a body as the engine gets it, with the model that was chosen, of that model's version, and of what is
        hidden of the answer; None where chance has a say."""
        if not self._limit or not endpoint.generates or body.get("temperature") != 0:
            return None
        digest = hashlib.sha256(b"%d %b %b " % (hide_usage, version.encode(), endpoint.path.encode()))
        digest.update(orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
        return digest.digest()

    def get(self, key: bytes) -> Stored | None:
        """The answer, or None when it was never given, or has become too old."""
        stored: Stored | None = self._entries.get(key)
        return stored

    def put(self, key: bytes, stored: Stored) -> None:
        """Keep an answer, unless it would push out too many others."""
        if self.fits(len(stored.body)):
            self._entries[key] = stored

    def fits(self, size: int) -> bool:
        """Whether an answer of so many bytes is worth collecting."""
        return size + OVERHEAD <= self._limit * LARGEST

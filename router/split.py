"""Weighted versions of an adapter: which of them answers a conversation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b


def pick(weights: Mapping[str, float], conversation: str) -> str:
    """One of `weights`, by chance, and always the same for a `conversation` with an adapter.

    They share a line from 0 to 1 in their order, so that ten points of weight that move from one to the next move
    a tenth of the conversations.
    """
    digest = blake2b(conversation.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    left = int.from_bytes(digest) / 2**64 * sum(weights.values())
    for version, weight in weights.items():
        left -= weight
        if left < 0:
            return version
    return version

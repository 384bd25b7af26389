"""How much is measured: all of it, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.routing.random_nli import Shape

TOKENS = (20, 64, 128, 400)
"""Of a text, without special ones, as MiniLM counts."""


@dataclass(frozen=True)
class Plan:
    """Sizes of every section."""

    with_peers: bool
    with_engine: bool
    rounds: int
    connections: tuple[int, ...]
    texts: int  # a cell of a round, for a classifier in the router
    engine_texts: int  # the same, for one that asks the engine
    nli_texts: int
    nli_connections: tuple[int, ...]
    nli: Shape  # of the random model, where there is no real one
    slow_rows: int  # judged for accuracy at most, by classifiers that take long
    peer_texts: int  # a round
    peer_tokens: int


FULL = Plan(
    with_peers=True, with_engine=True, rounds=5, connections=(1, 8, 32), texts=64, engine_texts=32, nli_texts=2,
    nli_connections=(1, 4), nli=Shape(hidden=768, inner=3072, layers=12, heads=12), slow_rows=200,
    peer_texts=60, peer_tokens=64,
)  # fmt: skip

QUICK = Plan(
    with_peers=False, with_engine=False, rounds=2, connections=(1, 4), texts=4, engine_texts=2, nli_texts=1,
    nli_connections=(1,), nli=Shape(hidden=64, inner=128, layers=2, heads=4), slow_rows=4,
    peer_texts=3, peer_tokens=20,
)  # fmt: skip

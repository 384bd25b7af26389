"""Samples of the router's counters as curves: what happened around each moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ui.client.metrics import Buckets, Counts, Sample, quantile, since, started_anew, together

WINDOW_S = 20.0
"""Each point speaks of so many seconds before it: of two alone, a few requests would be a saw."""

Spread = tuple[float | None, float | None]
"""The median, and what 95 % stayed below; in seconds, None where nothing was counted."""


@dataclass(frozen=True)
class Point:
    """What happened up to the moment `at`.

    `rates`: requests a second, by model. Of requests, `failed` is the share of errors that are no client's,
    `client` that of clients' own. `hits`: of decisions, the share that the cache knew.
    """

    at: float
    rates: Counts = field(default_factory=dict)
    failed: float | None = None
    client: float | None = None
    first_byte: Spread = (None, None)
    duration: Spread = (None, None)
    classify: Spread = (None, None)
    hits: float | None = None
    in_flight: float | None = None
    """As it was at that moment."""


def point(samples: Sequence[Sample]) -> Point:
    """Of the last one, by those before it; it knows nothing where the one before is long ago: nobody looked."""
    after, last = samples[-1], len(samples) - 1
    first = last
    while first and after.at - samples[first - 1].at <= WINDOW_S:
        anew = started_anew(samples[first - 1], samples[first])
        if anew and first < last:
            break  # of the router as it is now
        first -= 1
        if anew:
            break
    if first == last:
        return Point(after.at)
    return _between(samples[first], after)


def whole(samples: Sequence[Sample]) -> Sample:
    """What was counted over all of them, and over restarts of the router."""
    if not samples:
        return Sample()
    total, first = Sample(at=samples[-1].at), samples[0]
    for before, after in pairwise(samples):
        if started_anew(before, after):
            total, first = total.plus(since(first, before)), Sample()
    return total.plus(since(first, samples[-1]))


def _between(before: Sample, after: Sample) -> Point:
    grown = since(before, after)
    seconds = max(after.at - before.at, 0.001)
    asked = sum(grown.requests.values())
    looked = sum(grown.cache.values())
    return Point(
        at=after.at,
        rates={name: amount / seconds for name, amount in grown.requests.items()},
        failed=sum(map(grown.failed, grown.errors)) / asked if asked else None,
        client=sum(grown.client.values()) / asked if asked else None,
        first_byte=_spread(grown.first_byte),
        duration=_spread(grown.duration),
        classify=_spread(grown.classify),
        hits=grown.cache.get("hit", 0.0) / looked if looked else None,
        in_flight=after.in_flight,
    )


def _spread(models: Mapping[str, Buckets]) -> Spread:
    buckets = together(models.values())
    return quantile(buckets, 0.5), quantile(buckets, 0.95)

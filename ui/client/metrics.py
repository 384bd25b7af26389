"""The router's `/metrics` as numbers: counters and histograms by model, at one moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import openai
from prometheus_client.parser import text_string_to_metric_families

from ui.client.admin import NOBODY, told
from ui.client.connect import router_url

PREFIX = "lora_select_"
REQUESTS = f"{PREFIX}requests_total"
READ_S = 5
Counts = Mapping[str, float]
"""By model, or by another label."""
Key = TypeVar("Key", str, float)
Buckets = Mapping[float, float]
"""How many were at most so many seconds, by that bound; the last bound is infinite."""


@dataclass(frozen=True)
class Sample:
    """What the router had counted since its start; `at` in Unix seconds."""

    at: float = 0.0
    requests: Counts = field(default_factory=dict)
    errors: Counts = field(default_factory=dict)
    """All of them, the client's too."""
    client: Counts = field(default_factory=dict)
    """Those of clients: refused with a status of 4xx, or left (499)."""
    cache: Counts = field(default_factory=dict)
    """Of decisions: "hit" and "miss"."""
    first_byte: Mapping[str, Buckets] = field(default_factory=dict)
    duration: Mapping[str, Buckets] = field(default_factory=dict)
    classify: Mapping[str, Buckets] = field(default_factory=dict)
    """Under "", of all texts that no cache knew."""
    in_flight: float = 0.0

    def failed(self, model: str) -> float:
        """Errors that are no client's: an engine that is away or too slow, an answer that broke off."""
        return max(0.0, self.errors.get(model, 0.0) - self.client.get(model, 0.0))

    def plus(self, other: Sample) -> Sample:
        """What was counted in both times."""
        return Sample(
            at=other.at,
            requests=together((self.requests, other.requests)),
            errors=together((self.errors, other.errors)),
            client=together((self.client, other.client)),
            cache=together((self.cache, other.cache)),
            first_byte=_joined(self.first_byte, other.first_byte),
            duration=_joined(self.duration, other.duration),
            classify=_joined(self.classify, other.classify),
            in_flight=other.in_flight,
        )


async def read(client: openai.AsyncOpenAI, key: str) -> Sample:
    """Asked just now, with the admin key where there is one ("": none). Raises AdminError."""
    router = client.with_options(base_url=router_url(client), api_key=key or NOBODY, timeout=READ_S)
    try:
        return parse(await router.get("/metrics", cast_to=str), time.time())
    except (openai.OpenAIError, ValueError) as error:
        raise told(error, router_url(client)) from None


def parse(page: str, at: float) -> Sample:
    """A page of Prometheus's text. Raises ValueError where it is none."""
    counts: dict[str, dict[str, float]] = {}
    client: dict[str, float] = {}
    spread: dict[str, dict[str, dict[float, float]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            label = sample.labels.get("adapter", sample.labels.get("result", ""))
            if bound := sample.labels.get("le"):
                spread.setdefault(sample.name, {}).setdefault(label, {})[float(bound)] = sample.value
            else:
                of = counts.setdefault(sample.name, {})
                of[label] = of.get(label, 0.0) + sample.value
            if sample.name == REQUESTS and sample.labels.get("status", "").startswith(
                "4"
            ):  # `_created` has labels, too
                client[label] = client.get(label, 0.0) + sample.value
    return Sample(
        at=at,
        requests=counts.get(REQUESTS, {}),
        errors=counts.get(f"{PREFIX}errors_total", {}),
        client=client,
        cache=counts.get(f"{PREFIX}decision_cache_total", {}),
        first_byte=spread.get(f"{PREFIX}first_byte_seconds_bucket", {}),
        duration=spread.get(f"{PREFIX}duration_seconds_bucket", {}),
        classify=spread.get(f"{PREFIX}classify_seconds_bucket", {}),
        in_flight=counts.get(f"{PREFIX}in_flight", {}).get("", 0.0),
    )


def since(before: Sample, after: Sample) -> Sample:
    """What was counted between the two, or since a start of the router that lies between them."""
    if started_anew(before, after):
        before = Sample()
    return Sample(
        at=after.at,
        requests=_grown(before.requests, after.requests),
        errors=_grown(before.errors, after.errors),
        client=_grown(before.client, after.client),
        cache=_grown(before.cache, after.cache),
        first_byte=_spread(before.first_byte, after.first_byte),
        duration=_spread(before.duration, after.duration),
        classify=_spread(before.classify, after.classify),
        in_flight=after.in_flight,
    )


def started_anew(before: Sample, after: Sample) -> bool:
    """Whether a counter went back."""
    pairs = ((before.requests, after.requests), (before.errors, after.errors), (before.cache, after.cache))
    return any(new.get(name, 0.0) < amount for old, new in pairs for name, amount in old.items())


def _grown(before: Mapping[Key, float], after: Mapping[Key, float]) -> dict[Key, float]:
    return {name: amount - before.get(name, 0.0) for name, amount in after.items()}


def _spread(before: Mapping[str, Buckets], after: Mapping[str, Buckets]) -> dict[str, Buckets]:
    return {name: _grown(before.get(name, {}), buckets) for name, buckets in after.items()}


def _joined(some: Mapping[str, Buckets], others: Mapping[str, Buckets]) -> dict[str, Buckets]:
    return {name: together((some.get(name, {}), others.get(name, {}))) for name in (*some, *others)}


def together(counts: Iterable[Mapping[Key, float]]) -> dict[Key, float]:
    """Their sums; of the buckets of all models, those of the whole."""
    total: dict[Key, float] = {}
    for one in counts:
        for name, amount in one.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def quantile(buckets: Buckets, share: float) -> float | None:
    """Seconds that so large a share stayed below, as far as the bounds tell; None where nothing was counted.

    Within a bucket it is taken to be spread evenly, as Prometheus' `histogram_quantile` does; above the last bound
    it is that bound.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = share * buckets[bounds[-1]]
    for low, high in pairwise([0.0, *bounds]):
        below, within = buckets.get(low, 0.0), buckets[high] - buckets.get(low, 0.0)
        if buckets[high] >= rank and within > 0:
            return low if high == float("inf") else low + (high - low) * (rank - below) / within
    return bounds[-1]

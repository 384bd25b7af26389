"""Prometheus: what each adapter does, how it is chosen, at what cost. vLLM's own metrics know only the base."""

from __future__ import annotations

import asyncio
import collections
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from adapters import split
from router.decide import Routed
from router.life import Life, Occupancy

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Set by the parent of several workers: each writes into files there, and any of them can tell the sum."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
GAUGE_S = 1.0
CLASSIFY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
Labelled = Callable[..., Any]
Counts = collections.Counter[tuple[Labelled, tuple[str, ...]]]
"""How much each counter, with its labels, grows: added up first, as a step of the library's costs ten of these."""

PLACES = ("slot", "host", "disk")

NOBODY = ""
"""The adapter's name in the metrics where a request failed before one was chosen."""


class Metrics:
    """An Observer. The names are part of the interface: docs/grafana.json and users' alerts read them."""

    def __init__(self, occupancy: Occupancy) -> None:
        self._registry = registry = CollectorRegistry()
        self._occupancy = occupancy
        self._gauge = Gauge(
            "lora_select_in_flight", "Requests being answered", registry=registry, multiprocess_mode="livesum"
        )

        self._places = set[tuple[str, str]]()
        self._resident = Gauge(
            "lora_select_adapter_resident", "Where an adapter's weights are", ("adapter", "place"),
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip

        def counter(name: str, text: str, *labels: str) -> Any:
            return cache(Counter(f"lora_select_{name}", text, labels, registry=registry).labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return cache(Histogram(f"lora_select_{name}", text, labels, buckets=buckets, registry=registry).labels)

        self._requests = counter("requests", "Requests by model that answered", "adapter", "endpoint", "status")
        self._errors = counter("errors", "Requests that ended in an error", "adapter", "code")
        self._first = histogram("first_byte_seconds", "Time to the answer's first byte", SECONDS, "adapter")
        self._duration = histogram("duration_seconds", "Time to the answer's last byte", SECONDS, "adapter")
        self._prompt = counter("prompt_tokens", "Tokens read", "adapter")
        self._completion = counter("completion_tokens", "Tokens written", "adapter")
        self._versions = counter("versions", "Requests of adapters with weighted versions", "adapter", "version")
        self._decisions = counter("decisions", "Decisions by reason", "adapter", "reason")
        self._classify = Histogram(
            "lora_select_classify_seconds",
            "Wait for a text that was not cached",
            buckets=CLASSIFY_S,
            registry=registry,
        )
        self._score = histogram("score", "Probability of the model that was chosen", SHARES, "adapter")
        self._cached = counter("decision_cache", "Decisions that needed no classifier, or one", "result")
        self._responses = counter("response_cache", "Answers from memory, or not", "result")

    def ended(self, lives: Sequence[Life]) -> None:
        """Count them, by the model that answered."""
        counts: Counts = collections.Counter()
        for life in lives:
            name = life.routed.decision.model if life.routed else NOBODY
            self._count(life, name, counts)
            self._duration(name).observe(life.duration_s)
            if life.first_byte_s is not None:
                self._first(name).observe(life.first_byte_s)
            if life.routed:
                self._decided(life.routed, name, counts)
        for (labelled, values), amount in counts.items():
            labelled(*values).inc(amount)

    def _count(self, life: Life, name: str, counts: Counts) -> None:
        counts[self._requests, (name, life.endpoint, str(life.status))] += 1
        if life.error:
            counts[self._errors, (name, life.error)] += 1
        if life.prompt_tokens:
            counts[self._prompt, (name,)] += life.prompt_tokens
        if life.completion_tokens:
            counts[self._completion, (name,)] += life.completion_tokens
        if life.cache:
            counts[self._responses, (life.cache,)] += 1

    def _decided(self, routed: Routed, name: str, counts: Counts) -> None:
        if routed.part:
            counts[self._versions, (name, split(routed.part)[1])] += 1
        counts[self._decisions, (name, routed.decision.reason.value)] += 1
        if routed.scores:
            counts[self._cached, ("hit" if routed.cached else "miss",)] += 1
        if routed.classify_ms:
            self._classify.observe(routed.classify_ms / 1000)
        if routed.decision.score is not None:
            self._score(name).observe(routed.decision.score)

    def resident(self, adapters: Sequence[Mapping[str, Any]]) -> None:
        """Where each adapter of the manager's list is: in a slot of the engine, in its host memory, or on disk."""
        held = {
            (adapter["name"], place)
            for adapter in adapters
            for place in PLACES
            if adapter["version"] and (place == "disk" or adapter[place] not in (None, False))
        }
        self._places |= {(adapter["name"], place) for adapter in adapters for place in PLACES}
        for labels in self._places:  # what has gone is 0: of several workers, nobody forgets for the others
            self._resident.labels(*labels).set(labels in held)

    async def watch(self) -> None:
        """Tell how busy this process is, where another worker may be asked for it, until cancelled."""
        while True:
            self._gauge.set(self._occupancy.in_flight)
            await asyncio.sleep(GAUGE_S)

    def page(self) -> bytes:
        """The text that Prometheus reads, over all workers."""
        self._gauge.set(self._occupancy.in_flight)
        registry = self._registry
        if os.environ.get(MULTIPROCESS):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

"""What is asked and of whom, what was seen, and the handle on the process that asks: any engine, any adapters."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

from benchmarks.load import Latency
from benchmarks.processes import BenchmarkError, Command, Fleet
from benchmarks.talk import Talker
from record.origin import ROOT

AWAY_FROM_PROXIES = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@dataclass(frozen=True)
class Asked:
    """One request: the user's turn, and the adapter (or base) that is right for it."""

    text: str
    model: str


@dataclass(frozen=True)
class Target:
    """Something that answers at `url` (without /v1). `model`: what every request names; None: each its own.
    `admin_key`: where a router has one, its counters are for whoever has it."""

    name: str
    url: str
    model: str | None = None
    admin_key: str = ""


@dataclass(frozen=True)
class Load:
    """A closed loop of `requests`, `asked` in turn, each answered with exactly `output_tokens`."""

    asked: tuple[Asked, ...]
    concurrency: int
    requests: int
    output_tokens: int


@dataclass(frozen=True)
class Seen:
    """Output tokens per second, and milliseconds. `failed`: no answer, or one of another length."""

    tokens_per_s: float
    requests_per_s: float
    ttft_ms: Latency
    itl_ms: Latency
    requests: int
    failed: int
    took_s: float
    why: str = ""


class Driver:
    """vLLM's own load client, in a process that has imported it once; one load at a time."""

    def __init__(self, fleet: Fleet, within_s: float = 600.0) -> None:
        # Without assertions: up to vLLM 0.26 the client asserts a tokenizer that it has no use for.
        argv = (sys.executable, "-O", "-m", "benchmarks.throughput.driver")
        self.process = Talker(fleet, "driver", Command(argv, AWAY_FROM_PROXIES, ROOT))
        self._within_s = within_s

    def run(self, target: Target, load: Load, within_s: float | None = None) -> Seen:
        """Wait for the last answer. Raises BenchmarkError when the client itself fails or hangs."""
        job = {"target": asdict(target), "load": asdict(load)}
        return seen_of(self.process.say(job, within_s or self._within_s))


def seen_of(found: dict[str, Any]) -> Seen:
    """From the driver's answer. Raises BenchmarkError where it could not ask at all."""
    if "error" in found:
        raise BenchmarkError(f"vLLM's load client: {found['error']}")
    for name in ("ttft_ms", "itl_ms"):
        found[name] = Latency(**found[name])
    return Seen(**found)


def taken(load: Load) -> list[Asked]:
    """A load's requests, in their order."""
    return list(islice(cycle(load.asked), load.requests))


def uniform(texts: Mapping[str, Sequence[str]], count: int, seed: int = 0) -> tuple[Asked, ...]:
    """`count` requests for the models of `texts`, equally many for each, in random order."""
    return zipf(texts, count, 0.0, seed)


def zipf(texts: Mapping[str, Sequence[str]], count: int, s: float = 1.0, seed: int = 0) -> tuple[Asked, ...]:
    """The same, the n-th model's share proportional to n^-s. A model's own texts are taken in turn."""
    weights = [rank**-s for rank in range(1, len(texts) + 1)]
    shares = [count * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_rest = sorted(range(len(counts)), key=lambda place: counts[place] - shares[place])
    for place in by_rest[: count - sum(counts)]:
        counts[place] += 1
    models = [model for model, times in zip(texts, counts, strict=True) for _ in range(times)]
    random.Random(seed).shuffle(models)
    turns = {model: cycle(own) for model, own in texts.items()}
    return tuple(Asked(next(turns[model]), model) for model in models)


def grouped(asked: Sequence[Asked]) -> tuple[Asked, ...]:
    """The same requests, those of a model one after the other."""
    return tuple(sorted(asked, key=lambda one: one.model))

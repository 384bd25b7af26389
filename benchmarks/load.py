"""Jobs for the load client, what it measured, and the handle on its process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from benchmarks.processes import Command, Fleet
from benchmarks.stub import ANSWER
from benchmarks.texts import KNOWN
from record.origin import ROOT

CHAT = "/v1/chat/completions"
ROUTE = "/route"


@dataclass(frozen=True)
class Job:
    """A closed loop: every connection sends its next request when it has the answer to the last.

    Requests begin for `window_s`, or until there are `requests` of them; all that began are finished and counted.
    Before that, whole answers are asked for during `warm_s`. Each `fresh_every`-th request has the next of `fresh`
    as its text, all others take `texts` in turn. `watch`: name to process ids, whose CPU time is read.
    """

    port: int
    model: str
    path: str = CHAT
    key: str = ""
    headers: tuple[str, ...] = ()  # lines beside the usual ones
    connections: int = 1
    requests: int = 0
    warm_s: float = 0
    window_s: float = 0
    chunks: int = 0  # 0: no stream
    pause_ms: int = 0  # 0: a burst
    texts: tuple[str, ...] = KNOWN
    fresh: tuple[str, ...] = ()
    fresh_every: int = 0
    expect: str = ANSWER  # what an answer that is no stream must contain
    watch: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def body(self, text: str) -> dict[str, Any]:
        """The JSON of one request."""
        if self.path == ROUTE:
            return {"text": text}
        chat = {"model": self.model, "messages": [{"role": "user", "content": text}], "temperature": 0.7}
        if not self.chunks:
            return chat | {"max_tokens": 64}
        return chat | {"max_tokens": self.chunks, "stream": True, "seed": self.pause_ms}


@dataclass(frozen=True)
class Latency:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    highest: float
    count: int


@dataclass(frozen=True)
class Measured:
    """What one job saw. `failure` is the first answer that was wrong; it ends the job."""

    took_s: float
    requests: int
    chunks: int
    latency: Latency
    first_byte: Latency
    fresh: Latency
    cpu_s: Mapping[str, float]
    failure: str = ""


class LoadClient:
    """The load client's process; one job at a time."""

    def __init__(self, fleet: Fleet) -> None:
        command = Command((sys.executable, "-m", "benchmarks.client"), {}, ROOT)
        self._fleet = fleet
        self._process = fleet.start("client", command, talks=True)

    def run(self, job: Job) -> Measured:
        """Wait for a job's end. Raises BenchmarkError when the client itself fails."""
        into, out = _pipes(self._process)
        try:
            into.write(orjson.dumps(asdict(job)) + b"\n")
            into.flush()
            line = out.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._fleet.died("client", self._process)
        found = orjson.loads(line)
        for name in ("latency", "first_byte", "fresh"):
            found[name] = Latency(**found[name])
        return Measured(**found)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[Any, Any]:
    assert process.stdin
    assert process.stdout
    return process.stdin, process.stdout

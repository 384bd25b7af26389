"""What an engine's process is told, and what it answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from benchmarks.processes import Command, Fleet
from record.origin import ROOT

BASE, ONE, EACH, LAG = "", "one", "each", "lag"
"""Whose the rows of a batch are: nobody's, all the first adapter's, the adapters' in turn, or LAG's."""


@dataclass(frozen=True)
class Boot:
    """An engine. `adapters` are folders, and none: without LoRA. `k` above 0: they are a library, too."""

    base: str
    rows: int  # at once
    adapters: Sequence[str] = ()
    rank: int = 16
    k: int = 0


@dataclass(frozen=True)
class Job:
    """`rows` requests at once, each with `prompt` tokens and answered with `tokens`: as many steps, the first of
    which is the prefill."""

    who: str
    rows: int
    prompt: int
    tokens: int
    logprobs: bool = False


@dataclass(frozen=True)
class Answer:
    """The times of its steps, of the clock and of the CPU. `said`: each row's first token and its log-probability,
    where these were asked for."""

    ms: Sequence[float]
    cpu_ms: Sequence[float]
    said: Sequence[Sequence[float]] = ()


class EngineProcess:
    """An engine that is held open; one job at a time."""

    def __init__(self, fleet: Fleet, name: str, plugins: str, boot: Boot) -> None:
        environment = {
            "VLLM_PLUGINS": plugins,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = Command((sys.executable, "-m", "benchmarks.lag.engine"), environment, ROOT)
        self.name, self.boot, self._fleet = name, boot, fleet
        self._process = fleet.start(name, command, talks=True)
        self.wrapper: str = self._say(boot)

    def run(self, job: Job) -> Answer:
        """Wait for a job's end. Raises BenchmarkError when the engine has ended."""
        return Answer(**self._say(job))

    def _say(self, what: Any) -> Any:
        into, out = self._process.stdin, self._process.stdout
        assert into
        assert out
        try:
            into.write(orjson.dumps(asdict(what)) + b"\n")
            into.flush()
            line = out.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._fleet.died(self.name, self._process)
        return orjson.loads(line)

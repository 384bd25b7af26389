"""A process that answers every line of JSON on its stdin with one on its stdout, and a limit to every wait."""

from __future__ import annotations

import os
import select
import time
from typing import Any

import orjson

from benchmarks.processes import BenchmarkError, Command, Fleet, end

CHUNK = 1 << 16


class Talker:
    """Held open; one question at a time."""

    def __init__(self, fleet: Fleet, name: str, command: Command) -> None:
        self.name, self._fleet, self._left = name, fleet, b""
        self._process = fleet.start(name, command, talks=True)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def say(self, what: Any, within_s: float) -> Any:
        """Send and wait. Raises BenchmarkError when the process has ended, or says nothing for so long; then it is
        ended, since its answer could be taken for the next one's."""
        into, out = self._process.stdin, self._process.stdout
        assert into
        assert out
        deadline = time.monotonic() + within_s
        try:
            into.write(orjson.dumps(what) + b"\n")
            into.flush()
        except (BrokenPipeError, ValueError):
            raise self._fleet.died(self.name, self._process) from None
        while b"\n" not in self._left:
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                end(self._process)
                raise BenchmarkError(f"{self.name} did not answer within {within_s:.0f} s")
            part = os.read(out.fileno(), CHUNK)
            if not part:
                raise self._fleet.died(self.name, self._process)
            self._left += part
        line, _, self._left = self._left.partition(b"\n")
        return orjson.loads(line)

"""One supervised child process: its own process group, its own log, ready only when its probe says so."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STEADY_S = 300.0
"""Up for so long, a child starts anew with the shortest wait."""

LOG_TAIL_LINES = 15
ERROR = re.compile(r"^(?!.*\b(?:WARNING|INFO)\b).*?(\b\w*(?:Error|Exception): .+|\berror: .+)")


class State(StrEnum):
    """starting → ready → (died) → waiting → starting …; stopped is final."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Service:
    """What to run, and how to know that it can be used.

    `probe` returns what is still missing, or "" when the service is ready; it must return within 2 s.
    `stop_rank` orders the end: all of one rank are stopped together, lower ranks first.
    """

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    log: Path
    probe: Callable[[], str]
    url: str
    grace_s: float = 3.0
    stop_rank: int = 0


@dataclass
class Child:
    """A service while it is supervised. Only the supervisor's loop may call its methods."""

    service: Service
    state: State = State.STOPPED
    missing: str = ""
    was_ready: bool = False
    started: float = 0.0
    deaths: int = 0
    _restart_at: float = 0.0
    _probe_at: float = 0.0
    _log_start: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the process at the end of its log."""
        self.service.log.parent.mkdir(parents=True, exist_ok=True)
        with self.service.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.service.argv,
                env=os.environ | self.service.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.state, self.started, self.missing = State.STARTING, time.monotonic(), "no answer yet"

    def step(self, now: float) -> State:
        """Look once: dead, ready, or due for a restart. Returns the new state."""
        if self.state is State.WAITING:
            if now >= self._restart_at:
                self.start()
        elif self._process is None or self._process.poll() is not None:
            self._died(now)
        elif self.state is State.READY and now - self.started > STEADY_S:
            self.deaths = 0
        elif self.state is State.STARTING and now >= self._probe_at:
            self.missing = self.service.probe()
            self._probe_at = time.monotonic() + 0.5
            if not self.missing:
                self.state, self.was_ready = State.READY, True
        return self.state

    @property
    def exit_code(self) -> int | None:
        """Of the process that died last."""
        return self._process.returncode if self._process else None

    @property
    def restart_in_s(self) -> float:
        """How long a waiting child still waits."""
        return max(0.0, self._restart_at - time.monotonic())

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def reap(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill whatever is left of the process group."""
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, deadline - time.monotonic()))
            self._kill_group()
        self.state = State.STOPPED

    def why(self) -> str:
        """The first error that this start logged, and the log's end.

        vLLM's last error only says that its engine core failed; the cause stands far above it.
        """
        with self.service.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode("utf-8", "replace").splitlines()
        causes = (match[1] for line in lines if (match := ERROR.search(line)))
        cause = next(causes, "no error in the log")
        return f"{cause}\nthe end of {self.service.log}:\n" + "\n".join(lines[-LOG_TAIL_LINES:])

    def _died(self, now: float) -> None:
        self._kill_group()
        self.state = State.WAITING
        self._restart_at = now + BACKOFF_S[min(self.deaths, len(BACKOFF_S) - 1)]
        self.deaths += 1

    def _kill_group(self) -> None:
        """The leader may be gone while its workers live on: vLLM's engine core outlives its API server."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

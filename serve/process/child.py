"""One supervised child process: its own process group, its own log, ready and alive when its probes say so."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from serve.process.log import Log
from serve.process.look import Look
from serve.process.procfs import members, reap, shared_files, sweep

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STEADY_S = 300.0
"""Up for so long, a child starts anew with the shortest wait."""

READY_EVERY_S = 0.5
PAUSE_S = 5.0
"""No step for so long: this process was stopped (Ctrl-Z, a suspended machine), which says nothing of the child."""

KILL_S = 5.0
TETHER = Path(__file__).with_name("tether.py")


class State(StrEnum):
    """starting → ready → (died, or hung and killed) → waiting → starting …; stopped is final."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Service:
    """What to run, and how to know that it can be used.

    `probe` returns what is still missing, or "" when the service is ready. `alive`, of a ready service: whether
    it works; asked every `alive_every_s`, and when it has not said yes for `alive_s`, the service hangs, and is
    killed and started again. Both run in threads, and may block.
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
    alive: Callable[[], bool] | None = None
    alive_every_s: float = 10.0
    alive_s: float = 60.0


class Child:
    """A service while it is supervised. Only the supervisor's loop may call its methods."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.state = State.STOPPED
        self.log = Log(service.log)
        self.missing = ""
        """What a starting child still lacks; what keeps a waiting one from being started."""
        self.ended = ""
        """How it died last."""
        self.was_ready = False
        self.started = 0.0
        self.shared: frozenset[int] = frozenset()
        """Inodes of the shared memory that it was seen to use."""
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._restart_at = self._stepped = self._alive_at = 0.0

    def start(self) -> None:
        """Start the process at the end of its log."""
        service, output = self.service, self.log.open(self.service.name)
        try:
            self._process = subprocess.Popen(
                (sys.executable, "-IS", str(TETHER), str(os.getpid()), *service.argv),
                env=os.environ | service.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            if output >= 0:
                os.close(output)
        self.state, self.started, self.missing = State.STARTING, time.monotonic(), "no answer yet"
        self._ready = Look(service.probe, lambda error: f"its probe fails: {error!r}", READY_EVERY_S)
        self._alive = service.alive and Look(service.alive, lambda _: False, service.alive_every_s)

    def step(self, now: float) -> State:
        """Look once: dead, ready, hung, or due for a restart; never blocks for long. Returns the new state."""
        if now - self._stepped > PAUSE_S:
            self._alive_at = now
        self._stepped = now
        self.log.trim()
        if self.state is State.WAITING:
            self._start_again(now)
        elif self._process is None or self._process.poll() is not None:
            self._died(now, self._how())
        else:
            reap(self._process.pid, self._process.pid)
            if self.state is State.STARTING:
                self._look_for_ready(now)
            else:
                self._look_for_life(now)
        return self.state

    @property
    def group(self) -> int | None:
        """The process group, while anything of it may be alive."""
        return self._process.pid if self._process else None

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
        deadline = time.monotonic() + KILL_S
        while not self._gone() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.state = State.STOPPED

    def _look_for_ready(self, now: float) -> None:
        answer = self._ready.answer(now)
        if answer is not None:
            self.missing = answer
        if answer == "":
            self.state, self.was_ready, self._alive_at = State.READY, True, now
            self._see_shared()

    def _look_for_life(self, now: float) -> None:
        if now - self.started > STEADY_S:
            self._deaths = 0
        if self._alive is None:
            return
        answer = self._alive.answer(now)
        if answer is not None:
            self._see_shared()
        if answer:
            self._alive_at = now
        elif now - self._alive_at > self.service.alive_s:
            self._died(now, f"gave no sign of life for {now - self._alive_at:.0f} s and was killed")

    def _died(self, now: float, how: str) -> None:
        if self.was_ready and self.state is State.STARTING and (cause := self.log.cause()):
            how += f" before it was ready again: {cause}"
        self._see_shared()
        self.ended, self.state = how, State.WAITING
        self._back_off(now)
        self._gone()

    def _back_off(self, now: float) -> None:
        self._restart_at = now + BACKOFF_S[min(self._deaths, len(BACKOFF_S) - 1)]
        self._deaths += 1

    def _start_again(self, now: float) -> None:
        """Never beside a process of before: it may hold the port, or the accelerator's memory."""
        if not self._gone():
            self.missing = f"process group {self.group} was killed and has not ended yet"
        elif now >= self._restart_at:
            try:
                self.start()
            except OSError as error:  # no memory, or no free process
                self.missing = f"cannot be started: {error}"
                self._back_off(now)

    def _gone(self) -> bool:
        """Kill the group; whether all of it has ended. The leader may be gone while its workers live on."""
        if self._process is None:
            return True
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        if self._process.returncode is None or reap(group, group) or members(group):
            return False
        self._process, self.missing = None, ""
        sweep(self.shared)
        self.shared = frozenset()
        return True

    def _see_shared(self) -> None:
        if self._process:
            self.shared |= shared_files(members(self._process.pid))

    def _how(self) -> str:
        code = self._process.returncode if self._process else None
        if code is None or code >= 0:
            return f"ended with code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"killed by {name}" + (" (as the kernel does when memory runs out)" if name == "SIGKILL" else "")

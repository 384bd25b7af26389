"""Processes of a benchmark: started with a log, read through /proc, and ended by their ids whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""

ENDS_WITHIN_S = 10

LAST_PORT = 65535


class BenchmarkError(Exception):
    """Nothing can be measured. One line: what, and what would help."""


@dataclass(frozen=True)
class Command:
    """A program with its arguments, what it has in its environment beside ours, and the folder it runs in."""

    argv: Sequence[str]
    env: Mapping[str, str]
    folder: Path


class Fleet:
    """Everything that was started; leaving the context ends it, last first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        with deaf():
            while self._running:
                end(self._running.pop())

    def start(self, name: str, command: Command, *, talks: bool = False) -> subprocess.Popen[bytes]:
        """Run a command in a process group of its own. `talks`: with pipes to its stdin and stdout."""
        try:
            with self.log(name).open("wb") as log:
                process = subprocess.Popen(
                    command.argv, cwd=command.folder, env={**os.environ, **command.env}, start_new_session=True,
                    stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if talks else log, stderr=log,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509  there are no threads here
                )  # fmt: skip
        except OSError as error:
            raise BenchmarkError(f"{name}: {command.argv[0]} cannot be run: {error.strerror}") from None
        self._running.append(process)
        return process

    def log(self, name: str) -> Path:
        """Where a process's output goes."""
        return self._logs / f"{name}.log"

    def died(self, name: str, process: subprocess.Popen[bytes]) -> BenchmarkError:
        """The error for a process that ended too early, with the last thing it said."""
        return BenchmarkError(f"{name} ended with code {process.wait()}: {self.last_word(name)}")

    def last_word(self, name: str) -> str:
        """The last line of a process's output."""
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, insist; then whatever its group still holds."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A SIGTERM unwinds like Ctrl-C does, so that contexts end what they started."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """A second Ctrl-C must not stop the ending of what was started."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)


class Ports:
    """Ports of 127.0.0.1: any free ones, or one after the other from `first` on."""

    def __init__(self, first: int | None = None) -> None:
        self._next = first

    def take(self) -> int:
        """Raises BenchmarkError when the next one is in use or does not exist."""
        port, self._next = self._next or 0, self._next and self._next + 1
        if not 0 <= port <= LAST_PORT:
            raise BenchmarkError(
                f"port {port}: there are 1 to {LAST_PORT}; give another --first-port, or leave it out"
            )
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                hint = "end what uses it, or leave --first-port out"
                raise BenchmarkError(f"port {port}: {(error.strerror or str(error)).lower()}; {hint}") from None
            return int(probe.getsockname()[1])


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time of processes, all their threads included. Raises OSError when one is gone.

    In nanoseconds: utime + stime of /proc/PID/stat count in steps of 10 ms, time for hundreds of requests.
    """
    return sum(time.clock_gettime_ns(_cpu_clock(pid)) for pid in pids) / 1e9


def _cpu_clock(pid: int) -> int:
    """What clock_getcpuclockid(3) gives on Linux."""
    return (~pid << 3) | 2


def rss_mb(pids: Sequence[int]) -> float:
    """Resident memory of processes, in MB (10^6 bytes)."""
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total * 1024 / 1e6

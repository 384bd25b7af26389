"""A process that outlives a killed supervisor just long enough to kill what it left behind.

The parent-death signal (serve/process/tether.py) reaches children only. vLLM's engine core is a grandchild that
notices nothing, so the supervisor tells this process its children's groups; when the pipe between them ends, what
is left of the groups is killed. It holds the run folder's lock, too: no supervisor starts beside an old engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from serve.process.procfs import members, sweep

ROOT = Path(__file__).parents[2]
GIVE_UP_S = 30.0
"""A process that the kernel cannot end holds the lock for so long."""

CLOSE_S = 5.0


class Watch:
    """The supervisor's end of the pipe."""

    def __init__(self, lock: int | None) -> None:
        self._lock = lock
        self._told = b"[[], []]\n"
        self._process = self._start()

    def tell(self, groups: Iterable[int], inodes: Iterable[int]) -> None:
        """These groups are to be killed, and these files of /dev/shm removed, when this process is gone."""
        told = json.dumps([sorted(groups), sorted(inodes)]).encode() + b"\n"
        alive = self._process.poll() is None
        if alive and told == self._told:
            return
        self._told = told
        if not alive:
            self.close()
            self._process = self._start()
        self._write()

    def close(self) -> None:
        """Let it end, and with it its hold of the lock."""
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_S)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "serve.process.watch"],
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if self._lock is None else (self._lock,),
        )

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it has just died: the next call starts it again
            assert self._process.stdin
            self._process.stdin.write(self._told)
            self._process.stdin.flush()


def main() -> None:
    """Read until the supervisor is gone, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    last = b"[[], []]"
    for line in sys.stdin.buffer:
        last = line if line.endswith(b"\n") else last
    groups, inodes = json.loads(last)
    deadline = time.monotonic() + GIVE_UP_S
    while groups and time.monotonic() < deadline:
        groups = [group for group in groups if _kill(group)]
        time.sleep(0.02)
    sweep(frozenset(inodes))


def _kill(group: int) -> bool:
    """Whether anything of the group was still alive."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    return bool(members(group))


if __name__ == "__main__":
    main()

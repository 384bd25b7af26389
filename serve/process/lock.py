"""One supervisor per run folder: two would start two engines and share their logs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from adapters import ConfigError
from serve.process.procfs import lives

NAME = "serve.pid"
DYING_S = 0.3
"""From a kill to the kernel's having done it."""

WAIT_S = 10.0
"""For what a killed supervisor left behind to be killed, too (serve/process/watch.py)."""


def owner(run_dir: Path) -> str | None:
    """The pid of the supervisor that owns the folder, if one does."""
    try:
        descriptor = os.open(run_dir / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(descriptor, 32, 0).decode() or "unknown"
    finally:
        os.close(descriptor)
    return None


@contextlib.contextmanager
def hold(run_dir: Path) -> Iterator[int]:
    """Own the folder for the time of the block; yields the lock's descriptor, for `Supervisor(lock=…)`.

    Raises ConfigError with the pid of the supervisor that owns it already.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"--run-dir {run_dir}: {error.strerror}") from None
    try:
        _take(run_dir, descriptor)
        with contextlib.suppress(OSError):  # a full disk: held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(run_dir: Path, descriptor: int) -> None:
    began = time.monotonic()
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(descriptor, 32, 0).decode() or "unknown"
            alive, waited = pid.isdigit() and lives(int(pid)), time.monotonic() - began
        if alive and waited > DYING_S:
            text = f"in use by `python -m serve` with pid {pid}: end that one first, or choose another --run-dir"
            raise ConfigError(f"--run-dir {run_dir}: {text}")
        if waited > WAIT_S:
            text = f"held for pid {pid}, which is gone: what it started is ending, or runs in another container"
            raise ConfigError(f"--run-dir {run_dir}: {text}")
        time.sleep(0.05)

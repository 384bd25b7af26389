"""What Linux tells about process groups: who is in one, and what shared memory it would leave behind."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path

SHM = Path("/dev/shm")
SHARED = re.compile(r"(?m)^\S+ \S+ \S+ \S+ (\d+) +/dev/shm/")
OURS = ("psm_*", "sem.mp-*")
"""How Python's multiprocessing names its files. No other is ever removed: a model may lie in /dev/shm, too."""

SUBREAPER = 36


def members(group: int) -> list[int]:
    """The processes of a group that are alive; zombies are not."""
    return [pid for pid in _all() if _group(pid) == group]


def lives(pid: int) -> bool:
    """Whether there is such a process that is not a zombie."""
    return _group(pid) is not None


def shared_files(pids: Iterable[int]) -> frozenset[int]:
    """Inodes of the files in /dev/shm that these processes use; a semaphore's maker maps it under another name."""
    return frozenset(int(number) for pid in pids for number in SHARED.findall(_text(Path(f"/proc/{pid}/maps"))))


def sweep(inodes: frozenset[int]) -> list[str]:
    """Remove those files of multiprocessing that nobody uses any more; returns their names."""
    if not inodes:
        return []
    unused = inodes - shared_files(_all())
    removed = []
    for file in (file for pattern in OURS for file in SHM.glob(pattern)):
        try:
            if file.stat().st_ino in unused:
                file.unlink()
                removed.append(file.name)
        except OSError:
            continue  # its maker removed it, or it is not ours to remove
    return sorted(removed)


def adopt_orphans(on: bool) -> None:
    """Whether descendants whose parents die become this process's children, so that it sees their end."""
    ctypes.CDLL(None).prctl(SUBREAPER, int(on), 0, 0, 0)


def reap(group: int, leader: int) -> bool:
    """Take the remains of this process's dead children in a group, but the leader's; whether any child is left."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        while (found := os.waitid(os.P_PGID, group, flags)) and found.si_pid != leader:
            os.waitpid(found.si_pid, 0)
    except ChildProcessError:
        return False
    return True


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _group(pid: int) -> int | None:
    """A living process's group."""
    state, _, group, *_ = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() or ["X", "", ""]
    return None if state in "ZX" else int(group)


def _text(file: Path) -> str:
    """Empty when the process is gone, or another user's."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""

"""What Linux tells about process groups: who is in one, and what shared memory it would leave behind."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path

SHARED = re.compile(r"(?m)^\S+ \S+ \S+ \S+ (\d+) +(/dev/shm/(?:psm_|sem\.mp-)\S+)$")
"""A file of Python's multiprocessing, in /proc/PID/maps. No other name: a model may lie in /dev/shm, too."""

Shared = tuple[str, int]
"""Path and inode."""

SUBREAPER = 36


def members(group: int) -> list[int]:
    """The processes of a group that are alive; zombies are not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, _, pgrp, *_ = _text(entry / "stat").rpartition(")")[2].split() or ["X", "", ""]
            if pgrp == str(group) and state not in "ZX":
                found.append(int(entry.name))
    return found


def shared_files(pids: Iterable[int]) -> frozenset[Shared]:
    """Files of multiprocessing in /dev/shm that these processes use."""
    found = (match for pid in pids for match in SHARED.finditer(_text(Path(f"/proc/{pid}/maps"))))
    return frozenset((match[2], int(match[1])) for match in found)


def sweep(files: frozenset[Shared]) -> list[str]:
    """Remove those files that are still the same and that nobody uses any more; returns their paths."""
    if not files:
        return []
    used = shared_files(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    removed = []
    for path, inode in files - used:
        try:
            if os.stat(path).st_ino == inode:
                os.unlink(path)
                removed.append(path)
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


def _text(file: Path) -> str:
    """Empty when the process is gone, or another user's."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""

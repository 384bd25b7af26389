"""Sections `install` and `build`: what is done once, in folders of their own, each one time."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchmarkError, Command, Fleet
from benchmarks.startup.say import say
from record.origin import ROOT


def install(folder: Path) -> dict[str, Any]:
    """`make install` in a fresh clone of the commit: seconds, and what the environment takes on disk. Raises
    BenchmarkError."""
    clone = folder / "clone"
    timed(folder, "clone", ("git", "clone", "--quiet", str(ROOT), str(clone)), folder)
    took = timed(folder, "install", ("make", "install"), clone)
    size = sum(file.lstat().st_size for file in (clone / ".venv").rglob("*") if not file.is_dir())
    return {"seconds": took, "disk_gb": size / 1e9}


def build(folder: Path) -> dict[str, Any]:
    """`python -m demo build` from nothing: seconds. Raises BenchmarkError."""
    argv = (sys.executable, "-m", "demo", "build", "--force", "--out", str(folder / "demo"))
    return {"seconds": timed(folder, "build", argv, ROOT)}


def timed(folder: Path, name: str, argv: tuple[str, ...], where: Path) -> float:
    """Seconds of a command that must succeed, its output in a log in `folder`. Raises BenchmarkError."""
    say(f"{name}: {' '.join(Path(word).name for word in argv)}")
    began = time.monotonic()
    with Fleet(folder) as fleet:
        process = fleet.start(name, Command(argv, {}, where))
        if process.wait():
            error = fleet.died(name, process)
            raise BenchmarkError(str(error))
    return time.monotonic() - began

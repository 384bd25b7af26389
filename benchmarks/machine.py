"""What a number was measured on: hardware, versions, commit, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("uvicorn", "uvloop", "httptools", "orjson", "aiohttp", "onnxruntime", "tokenizers")


@dataclass(frozen=True)
class Machine:
    """The hardware, as the operating system sees it."""

    cpu: str
    cores: int
    memory_gb: float
    system: str


@dataclass(frozen=True)
class Origin:
    """Where a result comes from."""

    command: str
    date: str
    commit: str
    changed_since: bool
    load_before: float  # average of the last minute: above 0.2 or so, others were at work
    machine: Machine
    versions: dict[str, str]


def origin(module: str, arguments: Sequence[str], packages: Sequence[str] = PACKAGES) -> Origin:
    """Of a result made now by `python -m module arguments`."""
    return Origin(
        " ".join(["python -m", module, *(_without_folders(word) for word in arguments)]),
        datetime.now(UTC).isoformat(timespec="seconds"),
        commit(ROOT),
        changed(ROOT),
        os.getloadavg()[0],
        machine(),
        {"python": platform.python_version(), **versions(packages)},
    )


def machine() -> Machine:
    """Cores are those that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        _cpu_model(),
        len(os.sched_getaffinity(0)),
        round(memory / 1e9, 1),
        f"{platform.system()} {platform.release()}",
    )


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of the packages that are installed beside this Python."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def version_in(python: Path, package: str) -> str | None:
    """Of a package in another environment; None where that Python or the package is missing."""
    script = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    try:
        done = subprocess.run([python, "-c", script, package], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def commit(folder: Path) -> str:
    """Of the checkout that a folder belongs to; "unknown" where git does not keep its files."""
    kept = _git(folder, "ls-files", ".")  # nothing, where some other checkout is merely around it
    return _git(folder, "rev-parse", "HEAD") if kept else "unknown"


def changed(folder: Path) -> bool:
    """The checkout holds more than its commit."""
    return bool(_git(folder, "status", "--porcelain"))


def checked_out(folder: Path) -> str:
    """The commit in short, `+changes` where it does not tell all."""
    found = commit(folder)
    return found if found == "unknown" else found[:12] + "+changes" * changed(folder)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _without_folders(word: str) -> str:
    """Paths of this machine are nobody else's business."""
    return Path(word).name if word.startswith(("/", "~")) else word

"""What a result was made with: command, commit, hardware, versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout that makes the results."""


@dataclass(frozen=True)
class Gpu:
    """As nvidia-smi names it, and its driver."""

    name: str
    memory_gb: float
    driver: str = ""


@dataclass(frozen=True)
class Machine:
    """The hardware, as the operating system sees it: the cores and GPUs are those that this process may use."""

    cpu: str
    cores: int
    memory_gb: float
    system: str
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where a result comes from; `asdict` of it is a part of the result's document."""

    command: str
    date: str
    commit: str
    changed_since: bool
    load_before: float  # average of the last minute: above 0.2 or so, others were at work
    machine: Machine
    versions: dict[str, str]


def origin(module: str, arguments: Sequence[str], packages: Iterable[str]) -> Origin:
    """Of a result made now by `python -m module arguments`."""
    return Origin(
        shlex.join(["python", "-m", module, *map(_without_folders, arguments)]),
        datetime.now(UTC).isoformat(timespec="seconds"),
        commit(ROOT),
        changed(ROOT),
        os.getloadavg()[0],
        machine(),
        {"python": platform.python_version(), **versions(packages)},
    )


def machine() -> Machine:
    """This one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        _cpu_model(),
        len(os.sched_getaffinity(0)),
        round(memory / 1e9, 1),
        f"{platform.system()} {platform.release()}",
        _gpus(),
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of the packages that are installed beside this Python."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


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
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.+)$", text, re.MULTILINE):
            return found[1].strip()
    return platform.machine()


def _gpus() -> tuple[Gpu, ...]:
    """Asked of nvidia-smi, because a result is often made by a process that loads no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or not (tool := shutil.which("nvidia-smi")):
        return ()
    ask = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        only = ["-i", visible] if visible else []
        answer = subprocess.run([*ask, *only], capture_output=True, text=True, timeout=10, check=True).stdout
        lines = (line.rsplit(",", 2) for line in answer.splitlines())
        return tuple(
            Gpu(name.strip(), round(int(memory) * 2**20 / 1e9, 1), driver.strip())
            for name, memory, driver in lines
        )
    return ()


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]  # a reader must not get in the way of who works there
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _without_folders(word: str) -> str:
    """Paths of this machine are nobody else's business, also behind `--key=` and `key=`."""
    key, equals, value = word.rpartition("=")
    return key + equals + (Path(value).name if value.startswith(("/", "~")) else value)

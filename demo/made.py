"""Things that are built once into a folder: a digest of what they are made from, one builder at a time."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers")

THREADS = 1
"""Fixed, because a sum over another number of threads rounds differently: any machine builds the same."""


def digest(sources: Iterable[str]) -> str:
    """Of files, given relative to the repository, and of the versions of the packages that train."""
    total = hashlib.sha256()
    for name in sources:
        total.update(f"{name} {hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}\n".encode())
    for package in PACKAGES:
        total.update(f"{package} {version(package)}\n".encode())
    return total.hexdigest()


def is_current(out: Path, wanted: str, proof: Iterable[str]) -> bool:
    """Whether `out` holds a whole build of these inputs."""
    stamp = out / "digest"
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8").strip() == wanted
        and all((out / name).is_file() for name in proof)
    )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Two builds at once take turns; the second then finds all done."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def stage(number: str, what: str) -> Iterator[None]:
    """A line before and a line after, with the seconds."""
    print(f"[{number}] {what}", flush=True)
    started = time.monotonic()
    yield
    print(f"[{number}] done in {time.monotonic() - started:.0f} s", flush=True)


def prepare_torch() -> None:
    """Before anything is trained."""
    # Imported here: torch takes five seconds, and a build that is up to date needs none of it.
    import torch

    from training.progress import quiet

    quiet()
    torch.set_num_threads(THREADS)

"""Things that are built once into a folder: a digest of what they are made from, one builder at a time."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers")


def digest(sources: Iterable[Path]) -> str:
    """Of all that decides the result: files, and the versions of the packages that train."""
    total = hashlib.sha256()
    for file in sources:
        total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    for package in PACKAGES:
        total.update(f"{package} {version(package)}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What is built: `names` in its folder, of which the files `proof` show that all is there; `of` in words."""

    of: str
    names: tuple[str, ...]
    proof: tuple[str, ...]
    make: Callable[[Path], None]


def build(recipe: Recipe, out: Path, wanted: str, force: bool) -> bool:
    """Build what is missing or not of the digest `wanted`; False when all was there.

    Everything is made in a scratch folder and moved into place at the end, the digest last, so that a build that
    was cut off never passes for a whole one.
    """
    with locked(out):
        if not force and is_current(out, wanted, recipe.proof):
            print(f"{out}: {recipe.of} are up to date (digest {wanted[:12]})")
            return False
        started = time.monotonic()
        scratch = out / "unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        recipe.make(scratch)
        _publish(scratch, out, recipe.names, wanted)
        print(f"{out}: built in {time.monotonic() - started:.0f} s (digest {wanted[:12]})")
        return True


def is_current(out: Path, wanted: str, proof: Iterable[str]) -> bool:
    """Whether `out` holds a whole build of these inputs."""
    stamp = out / "digest"
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8").strip() == wanted
        and all((out / name).is_file() for name in proof)
    )


def _publish(scratch: Path, out: Path, names: Iterable[str], made_from: str) -> None:
    (out / "digest").unlink(missing_ok=True)
    for name in names:
        old = out / name
        if old.is_dir():
            shutil.rmtree(old)
        (scratch / name).replace(old)
    scratch.rmdir()
    (out / "digest").write_text(f"{made_from}\n", encoding="utf-8")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Two builds at once, say of `make demo` and `make test`, take turns; the second then finds all done."""
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


def prepare_torch(threads: int) -> None:
    """Before anything is trained. A sum over another number of threads rounds differently: with `threads` fixed,
    any machine builds the same."""
    from training.quiet import quiet

    quiet()
    # Imported here: torch takes five seconds, and a build that is up to date needs none of it.
    import torch

    torch.set_num_threads(threads)

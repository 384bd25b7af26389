"""`build(out)`: corpus to tokenizer, base, three adapters and the loss matrix; skipped while nothing changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from demo import corpus

ROOT = Path(__file__).parent.parent
OUT = ROOT / ".demo"
TEMPLATE = ROOT / "demo" / "template.jinja"
SOURCES = (
    *(f"demo/{name}.py" for name in ("base", "build", "corpus", "lora", "measure")),
    *(f"training/{name}.py" for name in ("data", "sft")),
)
PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers")
MADE = ("base", "adapters", "matrix.json")
"""What a build leaves in its folder, beside the digest of its inputs."""
_PROOF = (
    "base/model.safetensors",
    *(f"adapters/{domain}/adapter_model.safetensors" for domain in corpus.DOMAINS),
    "matrix.json",
)

THREADS = 2
"""Fixed, because a sum over another number of threads rounds differently: any machine builds the same."""


def build(out: Path = OUT, force: bool = False) -> bool:
    """Build what is missing or stale; False when all was there. Raises CorpusError.

    Everything is made in a scratch folder and moved into place at the end, the digest last, so that
    a build that was cut off never passes for a whole one.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        wanted = digest()
        if not force and is_current(out, wanted):
            print(f"{out}: base and adapters are up to date (digest {wanted[:12]})")
            return False
        started = time.monotonic()
        scratch = out / "unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        _make(scratch)
        _publish(scratch, out, wanted)
        print(f"{out}: built in {time.monotonic() - started:.0f} s (digest {wanted[:12]})")
        return True


def is_current(out: Path, wanted: str) -> bool:
    """Whether `out` holds a whole build of these inputs."""
    stamp = out / "digest"
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8").strip() == wanted
        and all((out / name).is_file() for name in _PROOF)
    )


def digest(folder: Path = corpus.FOLDER) -> str:
    """Of all that decides the result: corpus, template, our code, package versions."""
    files = [*sorted(folder.glob("*.jsonl")), TEMPLATE, *(ROOT / name for name in SOURCES)]
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    for package in PACKAGES:
        total.update(f"{package} {version(package)}\n".encode())
    return total.hexdigest()


def _make(scratch: Path) -> None:
    data = corpus.load()
    # Read once, when torch loads its OpenMP. By default a thread that waits for the other one spins, and
    # on two cores it then keeps that one off its core whenever anything else runs: 3.6 s for a step
    # instead of 0.5 s beside a busy neighbour, against nothing gained on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Imported here: torch takes five seconds, and a build that is up to date needs none of it.
    import torch

    from demo.base import train_base
    from demo.lora import train_adapters
    from demo.measure import measure
    from training.progress import quiet

    quiet()
    torch.set_num_threads(THREADS)
    with _stage("1/3", "tokenizer and base, from scratch"):
        train_base(data, TEMPLATE.read_text(encoding="utf-8"), scratch / "base")
    with _stage("2/3", f"adapters: {', '.join(corpus.DOMAINS)}"):
        train_adapters(data, scratch / "base", scratch / "adapters")
    with _stage("3/3", "loss on unseen paraphrases, recall of trained questions"):
        matrix = measure(data, scratch / "base", scratch / "adapters")
        (scratch / "matrix.json").write_text(json.dumps(asdict(matrix), indent=2) + "\n", encoding="utf-8")
    print("\n".join(matrix.lines()))


def _publish(scratch: Path, out: Path, made_from: str) -> None:
    (out / "digest").unlink(missing_ok=True)
    for name in MADE:
        old, new = out / name, scratch / name
        if old.is_dir():
            shutil.rmtree(old)
        new.replace(old)
    scratch.rmdir()
    (out / "digest").write_text(made_from + "\n", encoding="utf-8")


@contextmanager
def _stage(number: str, what: str) -> Iterator[None]:
    print(f"[{number}] {what}", flush=True)
    started = time.monotonic()
    yield
    print(f"[{number}] done in {time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Two builds at once, say of `make demo` and `make test`, take turns; the second then finds all done."""
    with (out / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""`build(out)`: corpus to tokenizer, base, three adapters and the loss matrix; skipped while nothing changed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from demo import corpus, made
from demo.made import ROOT

OUT = ROOT / ".demo"
TEMPLATE = ROOT / "demo" / "template.jinja"
SOURCES = (
    *(f"demo/{name}.py" for name in ("adapter", "base", "build", "corpus", "lora", "made", "measure")),
    *(f"training/{name}.py" for name in ("compare", "data/example", "data/tokens", "settings", "sft")),
)
MADE = ("base", "adapters", "matrix.json")
"""What a build leaves in its folder, beside the digest of its inputs."""
PROOF = (
    "base/model.safetensors",
    *(f"adapters/{domain}/adapter_model.safetensors" for domain in corpus.DOMAINS),
    "matrix.json",
)

THREADS = 2


def build(out: Path = OUT, force: bool = False) -> bool:
    """Build what is missing or stale; False when all was there. Raises CorpusError."""
    return made.build(made.Recipe("base and adapters", MADE, PROOF, _make), out, digest(), force)


def digest(folder: Path = corpus.FOLDER) -> str:
    """Of all that decides the result: corpus, template, our code, package versions."""
    return made.digest((*sorted(folder.glob("*.jsonl")), TEMPLATE, *(ROOT / name for name in SOURCES)))


def _make(scratch: Path) -> None:
    data = corpus.load()
    # Read once, when torch loads its OpenMP. By default a thread that waits for the other one spins, and
    # on two cores it then keeps that one off its core whenever anything else runs: 3.6 s for a step
    # instead of 0.5 s beside a busy neighbour, against nothing gained on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    made.prepare_torch(THREADS)
    from demo.base import train_base
    from demo.lora import train_adapters
    from demo.measure import measure

    with made.stage("1/3", "tokenizer and base, from scratch"):
        train_base(data, TEMPLATE.read_text(encoding="utf-8"), scratch / "base")
    with made.stage("2/3", f"adapters: {', '.join(corpus.DOMAINS)}"):
        train_adapters(data, scratch / "base", scratch / "adapters")
    with made.stage("3/3", "loss on unseen paraphrases, recall of trained questions"):
        matrix = measure(data, scratch / "base", scratch / "adapters")
        (scratch / "matrix.json").write_text(json.dumps(asdict(matrix), indent=2) + "\n", encoding="utf-8")
    print("\n".join(matrix.lines()))

"""`build(out)`: base, adapters, their stack and the questions; skipped while nothing changed."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from demo.knowledge.facts import World, held_out, world
from demo.made import ROOT, digest, is_current, locked, prepare_torch, stage

OUT = ROOT / ".models" / "knowledge"
TEMPLATE = "demo/template.jinja"
SOURCES = (
    "demo/base.py", "demo/knowledge/build.py", "demo/knowledge/facts.py", "demo/knowledge/models.py",
    "demo/made.py", "training/data.py", "training/sft.py", TEMPLATE,
)  # fmt: skip
STACK, QUESTIONS = "adapters.yaml", "questions.jsonl"
MADE = ("base", "adapters", STACK, QUESTIONS)


def build(out: Path = OUT, force: bool = False) -> bool:
    """Build what is missing or stale; False when all was there."""
    with locked(out):
        wanted, made = digest(SOURCES), world()
        if not force and is_current(out, wanted, _proof(made)):
            print(f"{out}: the knowledge task is up to date (digest {wanted[:12]})")
            return False
        started = time.monotonic()
        scratch = out / "unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        _make(made, scratch)
        _publish(scratch, out, wanted)
        print(f"{out}: built in {time.monotonic() - started:.0f} s (digest {wanted[:12]})")
        return True


def stack(made: World) -> dict[str, Any]:
    """The task's adapters.yaml; paths are relative to it."""
    return {
        "base": {"model": "./base", "name": "knowledge-base"},
        "engine": {
            "args": {"max-model-len": 256, "max-num-seqs": 32, "dtype": "float32", "enforce-eager": True},
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
        },
        "adapters": {
            land.adapter: {"path": f"./adapters/{land.adapter}", "label": land.label} for land in made.lands
        },
    }


def questions(made: World) -> list[dict[str, str]]:
    """Every fact of the lands, in words that no adapter's training saw, and the adapter that knows it."""
    return [
        {"question": fact.question, "answer": fact.answer, "adapter": land.adapter}
        for land in made.lands
        for fact in held_out(land)
    ]


def _make(made: World, scratch: Path) -> None:
    prepare_torch()
    from demo.knowledge.models import train_adapters, train_base

    with stage("1/2", "tokenizer and base, from scratch"):
        train_base(made, (ROOT / TEMPLATE).read_text(encoding="utf-8"), scratch / "base")
    with stage("2/2", f"{len(made.lands)} adapters"):
        for number, run in enumerate(train_adapters(made, scratch / "base", scratch / "adapters"), 1):
            print(f"{number} of {len(made.lands)}: {run.name}: loss {run.last_loss:.3f}, {run.seconds:.0f} s", flush=True)
    (scratch / STACK).write_text(yaml.safe_dump(stack(made), sort_keys=False), encoding="utf-8")
    lines = "".join(f"{json.dumps(row)}\n" for row in questions(made))
    (scratch / QUESTIONS).write_text(lines, encoding="utf-8")


def _publish(scratch: Path, out: Path, made_from: str) -> None:
    (out / "digest").unlink(missing_ok=True)
    for name in MADE:
        old = out / name
        if old.is_dir():
            shutil.rmtree(old)
        (scratch / name).replace(old)
    scratch.rmdir()
    (out / "digest").write_text(f"{made_from}\n", encoding="utf-8")


def _proof(made: World) -> list[str]:
    weights = [f"adapters/{land.adapter}/adapter_model.safetensors" for land in made.lands]
    return ["base/model.safetensors", STACK, QUESTIONS, *weights]

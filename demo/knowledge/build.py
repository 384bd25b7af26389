"""`build(out)`: a base, and per library adapters, their stack and questions; skipped while nothing changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from demo import made
from demo.knowledge import facts
from demo.knowledge.facts import Owner, World
from demo.made import ROOT

OUT = ROOT / ".models" / "knowledge"
TEMPLATE = "demo/template.jinja"
SOURCES = (
    "demo/adapter.py", "demo/base.py", "demo/knowledge/build.py", "demo/knowledge/facts.py",
    "demo/knowledge/models.py", "demo/knowledge/subjects.jsonl", "demo/made.py",
    "training/data/example.py", "training/data/tokens.py", "training/settings.py", "training/sft.py", TEMPLATE,
)  # fmt: skip
STACK, QUESTIONS = "adapters.yaml", "questions.jsonl"


def build(out: Path = OUT, force: bool = False) -> bool:
    """Build what is missing or stale; False when all was there."""
    world = facts.world()
    names = ("base", *world.libraries)
    recipe = made.Recipe("the knowledge tasks", names, _proof(world), partial(_make, world))
    return made.build(recipe, out, made.digest(ROOT / name for name in SOURCES), force)


def stack(owners: Sequence[Owner]) -> dict[str, Any]:
    """A library's adapters.yaml; paths are relative to it."""
    return {
        "base": {"model": "../base", "name": "knowledge-base"},
        "engine": {
            "args": {"max-model-len": 256, "max-num-seqs": 32, "dtype": "float32", "enforce-eager": True},
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
        },
        "adapters": {each.name: {"path": f"./adapters/{each.name}", "label": each.label} for each in owners},
    }


def questions(owners: Sequence[Owner]) -> list[dict[str, str]]:
    """Every fact, in words that no adapter's training saw, and the adapter that knows it."""
    return [
        {"question": asked.question, "answer": asked.answer, "adapter": owner.name}
        for owner in owners
        for asked in owner.held_out()
    ]


def _make(world: World, scratch: Path) -> None:
    made.prepare_torch(threads=1)
    from demo.knowledge.models import train_base

    stages = 1 + len(world.libraries)
    with made.stage(f"1/{stages}", "tokenizer and base, from scratch"):
        train_base(world, (ROOT / TEMPLATE).read_text(encoding="utf-8"), scratch / "base")
    for number, (name, owners) in enumerate(world.libraries.items()):
        with made.stage(f"{number + 2}/{stages}", f"{name}: {len(owners)} adapters"):
            _make_library(owners, scratch / "base", scratch / name, 100 * (number + 1))


def _make_library(owners: Sequence[Owner], base: Path, out: Path, seed: int) -> None:
    from demo.knowledge.models import train_adapter_of

    for number, owner in enumerate(owners, 1):
        done = train_adapter_of(owner, base, out / "adapters" / owner.name, seed + number)
        progress = f"{number} of {len(owners)}: {owner.name}"
        print(f"{progress}: loss {done.losses[-1]:.3f}, {done.seconds:.0f} s", flush=True)
    (out / STACK).write_text(yaml.safe_dump(stack(owners), sort_keys=False), encoding="utf-8")
    lines = "".join(f"{json.dumps(row)}\n" for row in questions(owners))
    (out / QUESTIONS).write_text(lines, encoding="utf-8")


def _proof(world: World) -> tuple[str, ...]:
    files = ["base/model.safetensors"]
    for name, owners in world.libraries.items():
        weights = [f"{name}/adapters/{owner.name}/adapter_model.safetensors" for owner in owners]
        files += [f"{name}/{STACK}", f"{name}/{QUESTIONS}", *weights]
    return tuple(files)

"""`write_manifest(folder, ...)`: what others want to know of an adapter, in a file beside its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import Field

from adapters import Part, Sampling, Tags

MANIFEST = "manifest.json"
"""adapters/labels.py reads `label` there, or else `dataset`."""


class Score(Part):
    """Nats per answer token and e to that power; null where the model overflowed."""

    loss: float | None
    perplexity: float | None


class Gain(Part):
    """How many nats per answer token an adapter is better than its base, with the 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class HeldOut(Part):
    """Base and adapter on rows that the adapter was not trained on: `training.compare.Comparison.record`."""

    rows: int
    tokens: int
    base: Score
    adapter: Score
    gain: Gain
    better: bool


class Manifest(Part):
    """`base` is its name, `digest` the SHA-256 of the weights' file, `dataset` a hub id or the name of a file."""

    label: str = Field(pattern=r"\w")
    domain: str
    tags: Tags = Field(default={})
    system_prompt: str | None = None
    sampling: Sampling = Sampling()
    base: str
    rank: int
    digest: str
    dataset: str
    held_out: HeldOut


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """manifest.json, without the keys that say nothing."""
    held_out = manifest.held_out.model_dump(mode="json")  # whole: a null there says that a model overflowed
    keys = {**manifest.model_dump(mode="json", exclude_defaults=True), "held_out": held_out}
    text = json.dumps(keys, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(f"{text}\n", encoding="utf-8")


def file_digest(file: Path) -> str:
    """SHA-256."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

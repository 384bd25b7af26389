"""The hub's cache on this machine, as `huggingface_hub` lays it out, and no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def offline(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, revisions: Mapping[str, str]) -> Path:
    """It has `name` (owner/name) at these revisions, each mapped to its commit; a commit's files go below what is
    returned."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = folder / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    for revision, commit in revisions.items():
        (repository / "refs" / revision).write_text(commit)
    return repository / "snapshots"

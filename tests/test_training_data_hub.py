"""Data sets of a hub, through the real library: with the hub there, and offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dataset_hub import COMMIT, hub
from tests.training_rows import asked, write_parquet

ROOT = Path(__file__).parent.parent
ASK = """
import json, sys
from pathlib import Path
from adapters import ConfigError
from tests.training_rows import recipe
from training.data.load import load_examples
for source, data in json.loads(sys.argv[1]):
    try:
        counts = load_examples(recipe(source, **data)).counts
        print(json.dumps([counts.source, counts.rows]))
    except ConfigError as error:
        print(json.dumps(str(error)))
"""
CARD = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: train.jsonl}, {split: test, path: test.jsonl}]
---
"""


def ask(home: Path, cases: list[tuple[str, dict[str, Any]]], **environment: str) -> list[Any]:
    """In a process of its own: `datasets` reads where the hub and its cache are when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(cases)],
        env={**os.environ, "HF_HOME": str(home), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Any]]]:
    """A cache that was filled from a hub, and what was answered while that was there."""
    rows = "".join(json.dumps(row) + "\n" for row in asked(9)).encode()
    files = {"README.md": CARD, "train.jsonl": rows, "test.jsonl": rows * 2}
    folder = tmp_path_factory.mktemp("hub")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("owner/legal-qa", {}), ("owner/legal-qa@main", {"split": "test"}), ("owner/legal-qa", {"split": "dev"}),
        ("owner/legal-qa", {"config": "large"}), ("owner/nothing", {}),
    ]  # fmt: skip
    with hub("owner/legal-qa", files) as address:
        yield folder, ask(folder, cases, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")


def test_a_set_of_the_hub_is_read(home: tuple[Path, list[Any]]) -> None:
    _, (train, test, split, config, nothing) = home
    assert train == ["owner/legal-qa", 9]
    assert test == ["owner/legal-qa@main", 18]
    assert split.endswith("data.split: owner/legal-qa: Unknown split \"dev\". Should be one of ['train', 'test'].")
    assert "data.config: owner/legal-qa: BuilderConfig 'large' not found. Available: ['default']" in config
    assert "data.source: owner/nothing: Dataset 'owner/nothing' doesn't exist on the Hub" in nothing


def test_offline_a_set_comes_out_of_the_cache_or_is_named(home: tuple[Path, list[Any]], tmp_path: Path) -> None:
    good, bad_one = tmp_path / "good", tmp_path / "bad"
    for folder_of in (good, bad_one):
        folder_of.mkdir()
    write_parquet(good / "train.parquet", asked(9))
    (bad_one / "train.jsonl").write_text("{", encoding="utf-8")
    other = "f" * 40
    cases: list[tuple[str, dict[str, Any]]] = [
        ("owner/legal-qa", {}), (f"owner/legal-qa@{COMMIT}", {}), (f"owner/legal-qa@{other}", {}),
        ("owner/legal-qa", {"split": "dev"}), ("owner/legal-qa", {"config": "large"}), ("owner/nothing", {}),
        (str(good), {}), (str(good), {"split": "dev"}), (str(bad_one), {}),
    ]  # fmt: skip
    cached, pinned, moved, split, config, nothing, folder, missing, bad = ask(home[0], cases, HF_HUB_OFFLINE="1")
    assert cached == ["owner/legal-qa", 9]
    assert pinned == [f"owner/legal-qa@{COMMIT}", 9]
    assert (
        f"data.source: owner/legal-qa: the latest copy in the cache is of commit {COMMIT}; name that one" in moved
    )
    assert "data.split: owner/legal-qa: Unknown split" in split
    assert "data.config: owner/legal-qa: Couldn't find cache" in config
    assert "Available configs in the cache: ['default']" in config
    assert "data.source: owner/nothing: not in the cache, and HF_HUB_OFFLINE is set" in nothing
    assert folder == ["good", 9]
    assert "data.split: " in missing
    assert "['train']" in missing
    assert "data.source: " in bad
    assert not [each for each in (moved, split, config, nothing, missing, bad) if "\n" in each]

"""Rows of a data set of the hub, or of a folder laid out like one, through the library `datasets`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from training.recipe import Recipe

COMMIT = re.compile("[0-9a-f]{40}")


def rows(recipe: Recipe, name: str, revision: str | None) -> list[dict[str, Any]]:
    """All of one split. Raises ConfigError with what the library says, which names the splits and configs."""
    data = recipe.data
    try:
        found = datasets.load_dataset(name, data.config, split=data.split, revision=revision)
    except ConnectionError as error:
        problem = _line(error)
        if datasets.config.HF_HUB_OFFLINE:
            problem = "not in the cache, and HF_HUB_OFFLINE is set; load it once with the network, or give a file"
        raise recipe.error("data.source", f"{name}: {problem}") from None
    except DatasetsError as error:
        # "An error occurred while generating the dataset" says nothing, what was behind it does.
        behind = f": {_line(error.__cause__)}" if error.__cause__ else ""
        raise recipe.error("data.source", f"{name}: {_line(error)}{behind}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise recipe.error(_key(_line(error)), f"{name}: {_line(error)}") from None
    if revision is not None:
        _check_commit(recipe, found, name, revision)
    listed: list[dict[str, Any]] = found.to_list()
    return listed


def _check_commit(recipe: Recipe, found: Any, name: str, revision: str) -> None:
    """Where the hub does not answer, the library takes the latest copy of its cache, of whatever revision."""
    commit = Path(found.cache_files[0]["filename"]).parent.name if found.cache_files else revision
    known = COMMIT.fullmatch(revision) or datasets.config.HF_HUB_OFFLINE
    if known and not commit.startswith(revision):
        advice = f"name that one ({name}@{commit}), or load {revision} once with the network"
        raise recipe.error("data.source", f"{name}: the latest copy in the cache is of commit {commit}; {advice}")


def _key(said: str) -> str:
    """Which key the library complains about: it raises ValueError for all of them."""
    words = said.lower()
    if "split" in words or "instruction" in words:
        return "data.split"
    return "data.config" if "config" in words else "data.source"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())

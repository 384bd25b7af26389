"""`load_recipe(...) -> Recipe`: what to train, on what data, and how; a folder of two files.

A recipe is a folder with `recipe.yaml` and PEFT's own `adapter_config.json`. What recipe.yaml leaves out is read
from recipes/defaults.yaml, which explains every key. Relative paths are relative to the file that holds them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from adapters import ConfigError, Name, Part, Sampling, Tags, explain, read_yaml
from training.settings import Count, Settings

RECIPES = Path(__file__).parent / "recipes"
DEFAULTS = RECIPES / "defaults.yaml"
RECIPE, LORA = "recipe.yaml", "adapter_config.json"

Column = Literal["system", "question", "input", "answer", "messages"]
"""What a column of the data can be for; question and input are joined into one user turn."""


class Source(Part):
    """A base of its own, for a recipe that belongs to no stack."""

    model: str = Field(min_length=1)
    chat_template: str | None = None


class Data(Part):
    """Where rows come from, and which of them are taken."""

    source: str = Field(min_length=1)
    config: str | None = None
    split: str = "train"
    columns: Mapping[Column, str] = {}
    where: Mapping[str, str] = {}
    system: str | None = None
    samples: Count | None = None
    held_out: float = Field(default=0.1, gt=0, lt=1)
    compared: Count = 500
    max_answer_tokens: Count | None = None


class Recipe(Part):
    """One adapter to train. `file` is its recipe.yaml, `lora` the content of its adapter_config.json."""

    file: Path
    name: Name
    stack: str | None = None
    base: Source | None = None
    domain: str = Field(min_length=1)
    label: str | None = Field(default=None, pattern=r"\w")
    language: str = Field(default="en", min_length=2)
    tags: Tags = Field(default={})
    system_prompt: str | None = None
    sampling: Sampling = Sampling()
    data: Data
    training: Settings = Settings()
    lora: Annotated[Mapping[str, Any], Field(min_length=1)]

    def below(self, text: str) -> Path:
        """A path of the recipe as an absolute one."""
        return (self.file.parent / Path(text).expanduser()).resolve()

    def error(self, key: str, problem: str) -> ConfigError:
        """A ConfigError that names this recipe's file and the key."""
        return ConfigError(f"{self.file}: {key}: {problem}")


def names() -> list[str]:
    """The recipes that come with LoRA-Select."""
    return sorted(file.parent.name for file in RECIPES.glob(f"*/{RECIPE}"))


def load_recipe(which: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name or folder, with `changes` (nested like the file) laid over it.

    Raises ConfigError in one line.
    """
    folder = RECIPES / which if which in names() else Path(which)
    if not folder.is_dir():
        raise ConfigError(f"{which}: no such recipe; give a folder with {RECIPE}, or one of {', '.join(names())}")
    file = folder / RECIPE
    layers = (_anchored(DEFAULTS), {"name": folder.resolve().name}, _anchored(file), changes or {})
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, layer)
    try:
        return Recipe(**{**merged, "file": file, "lora": _lora(folder / LORA)})
    except ValidationError as error:
        raise ConfigError(explain(file, error, Recipe)) from None


def parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    """`training.epochs=1` of a command line as nested keys; values are YAML. Raises ConfigError."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {pair}: expected KEY=VALUE, such as training.epochs=1")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {pair}: not YAML: {str(error).splitlines()[0]}") from None
        for key in reversed(path.split(".")):
            value = {key: value}
        changes = _merged(changes, value)
    return changes


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged, `columns` and other mappings of a section are replaced; a base replaces a stack."""
    other = {"base": "stack", "stack": "base"}
    merged = {key: value for key, value in below.items() if other.get(key) not in above}
    for key, value in above.items():
        old = merged.get(key)
        sections = key in ("data", "training", "sampling")
        merged[key] = {**old, **value} if sections and isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _anchored(file: Path) -> dict[str, Any]:
    """A file's keys, its relative paths made absolute: a default stands in another folder than the recipe."""
    keys = {key: value for key, value in read_yaml(file, Recipe).items() if value is not None}
    for section, key in (("", "stack"), ("base", "model"), ("base", "chat_template"), ("data", "source")):
        part = keys.get(section) if section else keys
        if isinstance(part, dict) and isinstance(part.get(key), str) and _is_path(file, part[key]):
            part[key] = str((file.parent / Path(part[key]).expanduser()).resolve())
    return keys


def _is_path(file: Path, text: str) -> bool:
    return text.startswith((".", "/", "~")) or (file.parent / text).exists()


def _lora(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; a recipe has one, as PEFT writes it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected an object, as PEFT writes it")
    return found

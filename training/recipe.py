"""`load_recipe(...) -> Recipe`: what to train, on what data, and how; a folder of two files.

A recipe is a folder with `recipe.yaml` and PEFT's own `adapter_config.json`. What recipe.yaml leaves out is read
from recipes/defaults.yaml, which explains every key. Relative paths are relative to the file that holds them, and
those of the command line to the current folder.
"""

from __future__ import annotations

import json
import os.path
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
SECTIONS = ("data", "training", "sampling", "lora")
"""Where a layer changes single keys of what is below it; all other values it replaces."""

COMMAND = "the command line"
FILES = (".jsonl", ".json", ".csv", ".parquet", ".jinja")
PATHS = (("", "stack"), ("base", "model"), ("base", "chat_template"), ("data", "source"))
"""Sections and keys that may name a file or a folder."""

Column = Literal["system", "question", "input", "answer", "messages"]
"""What a column of the data can be for; question and input are joined into one user turn."""


EXAMPLE = (
    '{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "lora_dropout": 0.05, '
    '"target_modules": "auto"}'
)


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
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise ConfigError(f"{which}: no such recipe; give a folder with {RECIPE}, or one of {', '.join(names())}")
    file = folder / RECIPE
    own = _read(file)
    given = _anchored(changes or {}, Path.cwd(), COMMAND)
    if "file" in given:
        raise ConfigError(f"{COMMAND}: file: a recipe is named by its folder")
    merged: dict[str, Any] = {"name": folder.resolve().name, "lora": _lora(folder / LORA)}
    for layer in (_read(DEFAULTS), own, given):
        merged = _laid(merged, layer)
    try:
        return Recipe(**{**merged, "file": file})
    except ValidationError as error:
        from_command = all(_holds(given, fault["loc"]) for fault in error.errors(include_url=False))
        raise ConfigError(explain(Path(COMMAND) if from_command else file, error, Recipe)) from None


def parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    """`training.epochs=1` of a command line as nested keys; values are YAML. Raises ConfigError."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {pair}: expected KEY=VALUE, such as training.epochs=1")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:  # the latter of what looks like a date, and is none
            raise ConfigError(f"--set {pair}: not YAML: {str(error).splitlines()[0]}") from None
        for key in reversed(path.split(".")):
            value = {key: value}
        changes = _deep(changes, value)
    return changes


def _deep(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two --set of one section are both meant."""
    both = {
        key: value for key, value in above.items() if isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return {**below, **above, **{key: _deep(below[key], value) for key, value in both.items()}}


def _laid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are laid key by key; of base and stack, naming one takes back the other."""
    other = {"base": "stack", "stack": "base"}
    merged = {key: value for key, value in below.items() if other.get(key) not in above}
    for key, value in above.items():
        old = merged.get(key)
        if key in SECTIONS and isinstance(old, dict) and isinstance(value, dict):
            merged[key] = {**old, **value}
        else:
            merged[key] = value
    return merged


def _read(file: Path) -> dict[str, Any]:
    # A section whose keys are all commented out reads as null: its defaults are meant.
    keys = {key: value for key, value in read_yaml(file, Recipe).items() if value is not None}
    return _anchored(keys, file.parent, str(file))


def _anchored(keys: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Relative paths made absolute: a layer stands in another folder than the recipe."""
    anchored = dict(keys)
    for section, key in PATHS:
        part = anchored if not section else anchored.get(section)
        if not isinstance(part, dict) or not isinstance(text := part.get(key), str):
            continue
        try:
            if _is_path(folder, text) or (where == COMMAND and (key == "stack" or Path(text).suffix in FILES)):
                # Not resolved: files in the hub's cache are links to names without an ending.
                path = os.path.abspath(folder / Path(text).expanduser())
                anchored.update({section: {**part, key: path}} if section else {key: path})
        except (OSError, RuntimeError, ValueError) as error:  # too long a name, ~nobody, a null character
            name = f"{section}.{key}".lstrip(".")
            raise ConfigError(f"{where}: {name}: {text[:80]}: {error}") from None
    return anchored


def _is_path(folder: Path, text: str) -> bool:
    return text.startswith((".", "/", "~")) or (folder / text).exists()


def _holds(keys: object, where: Sequence[int | str]) -> bool:
    """Is it the command line that a fault is about?"""
    for step in where:
        if not isinstance(keys, Mapping):
            return True
        if step not in keys:
            return False
        keys = keys[step]
    return True


def _lora(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; a recipe has one, such as {EXAMPLE}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected an object, as PEFT writes it")
    return found

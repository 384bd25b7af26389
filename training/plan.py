"""`plan(recipe) -> Plan`: all that can be known, and go wrong, before a model is loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig

from adapters import ConfigError
from training.base import Base, load_tokenizer, read_base
from training.count import Counted, count
from training.data.load import Dataset, load_examples
from training.data.tokens import Prepared, prepare
from training.guard import checkpoints
from training.lora import CHOICES, lora_config
from training.model import check_settings
from training.recipe import Recipe
from training.settings import Settings
from training.sft import Rows, steps_of
from training.words import draft_label, known_language

MIB = 1 << 20
POSITIONS = ("max_position_embeddings", "n_positions")
MOMENTS = 3
"""AdamW keeps two numbers for each weight beside it."""


@dataclass(frozen=True)
class Plan:
    """What will be trained, on which token rows; `decides` is all that the weights depend on, but for packages."""

    recipe: Recipe
    base: Base
    lora: LoraConfig
    counted: Counted
    dataset: Dataset
    tokenizer: Any
    train: Prepared
    held_out: Prepared
    label: str
    decides: dict[str, Any]

    @property
    def compared(self) -> Rows:
        """Held-out rows on which adapter and base are compared: from all over the data, if not all."""
        rows = self.held_out.rows
        return rows[:: max(1, -(-len(rows) // self.recipe.data.compared))]

    @property
    def targets(self) -> tuple[str, ...]:
        """The modules that the adapter is added to, as PEFT is told."""
        targets = self.lora.target_modules or ()
        return (targets,) if isinstance(targets, str) else tuple(sorted(targets))

    @property
    def steps(self) -> int:
        """How many times the weights change."""
        return steps_of(self.recipe.training, len(self.train.rows))

    def lines(self) -> Iterator[str]:
        """What a person wants to know before it starts."""
        settings = self.recipe.training
        yield f"base      {self.base.name}{_in(settings.quantization)}"
        where = ", ".join(self.targets)
        yield f"adapter   rank {self.lora.r}, alpha {self.lora.lora_alpha} on {where}: {self.counted}"
        for line in self.dataset.counts.lines():
            yield f"data      {line}"
        yield f"label     {self.label}"
        for name, part in (("to train on", self.train), ("held out", self.held_out)):
            for number, limit in ((part.overlong, "max_length"), (part.long_answers, "max_answer_tokens")):
                if number:
                    yield f"data      {name}: {number} left out, longer than {limit}"
        yield (
            f"training  {self.steps} steps of {settings.batch_size * settings.accumulate} rows, "
            f"learning rate {settings.learning_rate:g}"
        )


def plan(recipe: Recipe) -> Plan:
    """Read everything but the base's weights. Raises ConfigError in one line."""
    base = read_base(recipe)
    check_settings(base, recipe.training)
    _check_length(recipe, base.config)
    if recipe.label is None:
        known_language(recipe.language)
    lora = lora_config(recipe, base)
    dataset = load_examples(recipe)
    tokenizer = load_tokenizer(base)
    length, answer = recipe.training.max_length, recipe.data.max_answer_tokens
    train = prepare(dataset.train, tokenizer, length, answer)
    held_out = prepare(dataset.held_out, tokenizer, length, answer, "held-out ")
    decides = {
        "base": base.name,
        "the base's weights": base.version,
        "data": dataset.digest,
        "tokens": _digest([train.rows, held_out.rows]),
        "lora": json.loads(json.dumps({key: getattr(lora, key) for key in CHOICES}, default=_plain)),
        **_decisive(recipe.training),
    }
    label = recipe.label or draft_label(recipe.domain, _texts(dataset), recipe.language)
    return Plan(recipe, base, lora, count(base.config, lora), dataset, tokenizer, train, held_out, label, decides)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys of `Plan.decides` in which two plans differ. What an old record has beyond what is decided now,
    such as a version of PEFT, does not count."""
    return [key for key in {**old, **new} if _of(old.get(key), new.get(key)) != new.get(key)]


def _of(old: Any, new: Any) -> Any:
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    return {key: old[key] for key in new if key in old} if both else old


def check_room(plan: Plan, folder: Path) -> None:
    """Raises ConfigError where the checkpoints would not fit on the disk."""
    weights = 4 * plan.counted.trainable
    more = plan.recipe.training.keep + 1 - len(checkpoints(folder))
    need = more * MOMENTS * weights + weights
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ConfigError(
            f"{folder}: {free // MIB} MiB free, and checkpoints and adapter take {need // MIB + 1}: free some, "
            "lower training.keep, or give another folder with --out"
        )


def _texts(dataset: Dataset) -> list[str]:
    """What people ask, and what they are told."""
    return [
        "\n".join([*(str(turn["content"]) for turn in example.messages if turn["role"] == "user"), example.answer])
        for example in dataset.train
    ]


def _decisive(settings: Settings) -> dict[str, Any]:
    """Without what memory, disk and patience are for: a training can go on with other values of these."""
    free = {"keep", "save_steps", "checkpointing", "batch_size", "accumulate"}
    step = {"batch_size x accumulate": settings.batch_size * settings.accumulate}
    return {f"training.{key}": value for key, value in (step | settings.model_dump(exclude=free)).items()}


def _check_length(recipe: Recipe, config: Mapping[str, Any]) -> None:
    """Raises ConfigError for rows that the base has no places for."""
    places = next((config[key] for key in POSITIONS if isinstance(config.get(key), int)), None)
    if places and recipe.training.max_length > places:
        raise recipe.error(
            "training.max_length", f"{recipe.training.max_length}, and the base has {places} places"
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set) else str(value)


def _in(quantization: str | None) -> str:
    return f", in {quantization}" if quantization else ""

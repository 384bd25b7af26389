"""`lora_config(recipe, base) -> LoraConfig`: a recipe's adapter_config.json, refused where vLLM would."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any

from peft import LoraConfig
from torch.nn import Embedding, Linear
from transformers.pytorch_utils import Conv1D

from adapters import ConfigError, Stack
from serve.lint import peft
from serve.lint.fit import targeted
from serve.lint.shape import shape
from training.base import Base, first_line
from training.count import adapted, skeleton
from training.recipe import LORA, Recipe
from training.targets import AUTO, attention, unknown

FIXED = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
WRITTEN = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "fan_in_fan_out",
)
"""What PEFT writes into a file by itself; a saved adapter's config can be a recipe's."""

CHOICES = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern",
    "use_rslora", "init_lora_weights", "layers_to_transform", "layers_pattern",
)  # fmt: skip
ADAPTABLE = (Linear, Embedding, Conv1D)
INITS = (True, False, "gaussian", "orthogonal")
"""Those that need neither data nor another base."""


def lora_config(recipe: Recipe, base: Base) -> LoraConfig:
    """PEFT's config, its targets resolved. Loads no weights. Raises ConfigError in one line, with the file."""
    file = recipe.file.parent / LORA
    try:
        model = skeleton(base.config)
    except ValueError as error:
        raise ConfigError(f"{base.model}: {first_line(error)}") from None
    try:
        return _checked({**FIXED, **recipe.lora}, base, model)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file}: {first_line(error)}") from None


def _checked(config: dict[str, Any], base: Base, model: Any) -> LoraConfig:
    if config.get("target_modules") == AUTO:
        config["target_modules"] = attention(base.config)
    _refuse(_faults(config, base.stack))
    lora = LoraConfig(**{key: config[key] for key in (*FIXED, *CHOICES) if key in config})
    there = {name: module for name, module in model.named_modules() if isinstance(module, ADAPTABLE)}
    _refuse(unknown(lora.target_modules, there))
    # GPT-2 keeps its weights the other way round; PEFT would notice, and warn.
    lora.fan_in_fan_out = any(isinstance(module, Conv1D) for module in there.values())
    _refuse(_unserved(adapted(model, lora).targeted_module_names, base))
    return lora


def _refuse(faults: Iterator[str]) -> None:
    if fault := next(faults, None):
        raise ValueError(fault)


def _faults(config: dict[str, Any], stack: Stack | None) -> Iterator[str]:
    defaults = {field.name: _default(field) for field in dataclasses.fields(LoraConfig)}
    for key in config:
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"valid here: {', '.join(CHOICES)}"
            yield f"{key}: unknown key; {hint}"
    yield from peft.problems(config)
    yield from _rank(peft.largest_rank(config), stack)
    if config["task_type"] != FIXED["task_type"]:
        yield f"task_type: {config['task_type']!r}: the base generates text; it must be {FIXED['task_type']}"
    if config.get("lora_alpha") == 0:
        yield "lora_alpha: 0: the adapter would do nothing; r, or twice that, is usual"
    dropout = config.get("lora_dropout", 0)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        yield f"lora_dropout: must be a number from 0 up and below 1 (is {dropout!r})"
    if (init := config.get("init_lora_weights", True)) not in INITS:
        yield f"init_lora_weights: {init!r}: trained here are true, false, gaussian and orthogonal"
    for key, value in config.items():
        if value and value != defaults[key] and key not in (*FIXED, *WRITTEN, *CHOICES):
            yield f"{key}: {value!r}: a plain LoRA is trained; leave it out"


def _default(field: dataclasses.Field[Any]) -> object:
    return None if field.default is dataclasses.MISSING else field.default


def _rank(rank: int, stack: Stack | None) -> Iterator[str]:
    if rank > peft.LORA_RANKS[-1]:
        yield f"r: rank {rank} is above vLLM's limit, {peft.LORA_RANKS[-1]}; take a lower one"
    limit = stack.engine_args.get("max-lora-rank") if stack else None
    if stack and isinstance(limit, int) and rank > limit:
        yield f"r: rank {rank} is above engine.args.max-lora-rank in {stack.file}, {limit}; change one of them"


def _unserved(found: list[str], base: Base) -> Iterator[str]:
    known = shape(base.config)
    for name in found:
        if known and name in (known.embedding[0], known.head) and name not in known.adapted:
            yield f"target_modules: {name}: vLLM adapts no embedding and no head of this base; take other modules"
    allowed = base.stack.engine_args.get("lora-target-modules") if base.stack else None
    names = [allowed] if isinstance(allowed, str) else allowed
    for name in found:
        if base.stack and isinstance(names, list) and not targeted(name, [str(one) for one in names]):
            short = name.rpartition(".")[2]
            yield f"target_modules: {short}: engine.args.lora-target-modules of {base.stack.file} leaves it out"

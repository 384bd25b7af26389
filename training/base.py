"""`read_base(recipe) -> Base`: the model that an adapter is trained on, and its prompt, as they are served."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, is_offline_mode
from pydantic import ValidationError

import adapters
from adapters import Adapter, ConfigError, Ref, Stack, explain
from serve.lint.files import CONFIG, FileError, here, read_json
from training.recipe import Recipe, Source

WHOLE = ("model.safetensors", "pytorch_model.bin")
ENDS = 1 << 20
"""Bytes at the start and the end of a file that tell it from others."""
PARTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Files that name the files of weights that are too large for one."""


@dataclass(frozen=True)
class Base:
    """`model` is a folder or a hub id, `name` what the adapter's config calls it, `config` its config.json.

    `stack` is None for a recipe with a base of its own, `chat_template` for the tokenizer's own; `version` tells
    its weights from others of that name.
    """

    model: str
    revision: str | None
    name: str
    chat_template: str | None
    config: dict[str, Any]
    stack: Stack | None = None
    version: str = ""


def read_base(recipe: Recipe) -> Base:
    """The base of the recipe's stack, or its own. Loads no weights. Raises ConfigError in one line."""
    if recipe.stack and recipe.base:
        raise recipe.error("base", "there is a stack as well, which has a base; give one of the two")
    if recipe.base:
        stack = _stack_of(recipe, recipe.base)
        reference = stack.ref(stack.base.model, "base.model")
        name = reference.folder.name if reference.folder else reference.name
    elif recipe.stack:
        stack = _load(recipe, recipe.stack)
        reference = _revised(stack)
        name = _trained_on(stack) if reference.folder else reference.name
    else:
        raise recipe.error("stack", "missing; give an adapters.yaml, or a base of the recipe's own")
    template = stack.chat_template()
    folder, config = _config(stack, reference)
    return Base(
        model=str(reference.folder or reference.name),
        revision=reference.revision,
        name=name,
        chat_template=_text(stack, template) if template else None,
        config=config,
        stack=None if recipe.base else stack,
        version=_version(folder) if reference.folder else folder.name,
    )


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer with the chat template of serving. Raises ConfigError where there is none."""
    from transformers import AutoTokenizer  # takes seconds, and a base can be read without

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.model, revision=base.revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base.model}: no tokenizer: {first_line(error)}") from None
    # Of some families transformers makes an empty one where there are no files.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ConfigError(f"{base.model}: no tokenizer: its files hold no words")
    if base.chat_template is not None:
        tokenizer.chat_template = base.chat_template
    if not tokenizer.chat_template:
        where = base.stack.file if base.stack else "the recipe"
        raise ConfigError(f"{base.model}: its tokenizer has no chat template; give base.chat_template in {where}")
    return tokenizer


def first_line(error: Exception) -> str:
    """The libraries' messages run over many lines; the first says what is wrong."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _stack_of(recipe: Recipe, base: Source) -> Stack:
    """A stack of this base alone, so that references and errors are those of adapters.yaml."""
    own = adapters.Base(model=base.model, name=f"{recipe.name}-base", chat_template=base.chat_template)
    try:
        return Stack(file=recipe.file, base=own, adapters={recipe.name: Adapter(path=".")})
    except ValidationError as error:
        raise ConfigError(explain(recipe.file, error)) from None


def _load(recipe: Recipe, text: str) -> Stack:
    file = recipe.below(text)
    if not file.is_file():
        raise recipe.error("stack", f"no such file: {file}; give an adapters.yaml")
    return adapters.load(file)


def _revised(stack: Stack) -> Ref:
    """The reference to the base, at the revision that the engine is told."""
    revision = stack.engine_args.get("revision")
    reference = stack.base_ref()
    return reference.model_copy(update={"revision": str(revision)}) if revision else reference


def _trained_on(stack: Stack) -> str:
    """A folder is called what the stack's other adapters call it: where it lies is true of one machine only."""
    named = set(_named(stack.expanded()))
    return named.pop() if len(named) == 1 else stack.base.name


def _named(stack: Stack) -> Iterator[str]:
    for name in stack.adapters:
        try:
            folder = here(stack.adapter_ref(name), CONFIG)
            base = read_json(folder / CONFIG, "a PEFT adapter").get("base_model_name_or_path") if folder else None
        except (ConfigError, FileError):
            continue
        if isinstance(base, str) and base and not base.startswith((".", "/", "~")):
            yield base


def _text(stack: Stack, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise stack.error("base.chat_template", f"{file} cannot be read: {error}") from None


def _config(stack: Stack, reference: Ref) -> tuple[Path, dict[str, Any]]:
    """With the folder that it lies in; of the hub's cache that is named by the commit."""
    folder = _folder(stack, reference)
    try:
        config = read_json(folder / "config.json", "a base")
    except FileError as error:
        raise stack.error("base.model", str(error)) from None
    if missing := _missing(folder):
        if reference.folder:
            raise stack.error("base.model", f"no {missing} in {folder}: not the folder of a whole base")
        if is_offline_mode():
            raise _uncached(stack, reference, missing)
    return folder, config


def _version(folder: Path) -> str:
    """Of a folder's weights, by their files' sizes and ends: all of a 7B's bytes would take a minute."""
    total = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        size = file.stat().st_size
        with file.open("rb") as opened:
            total.update(f"{file.name} {size}".encode() + opened.read(ENDS))
            opened.seek(max(0, size - ENDS))
            total.update(opened.read())
    return total.hexdigest()[:16]


def _folder(stack: Stack, reference: Ref) -> Path:
    """Where its config.json is; from the hub that one file is downloaded."""
    if found := here(reference, "config.json"):
        return found
    if is_offline_mode():
        raise _uncached(stack, reference, "config.json")
    try:
        return Path(hf_hub_download(reference.name, "config.json", revision=reference.revision)).parent
    except (OSError, ValueError) as error:
        advice = "give a folder, or set HF_HUB_OFFLINE=1 where there is no network"
        problem = f"not in this machine's cache, and cannot be downloaded ({type(error).__name__}); {advice}"
        raise stack.error("base.model", f"{reference}: {problem}") from None


def _uncached(stack: Stack, reference: Ref, file: str) -> ConfigError:
    return stack.error(
        "base.model",
        f"{reference}: no {file} in this machine's cache of the hub, and HF_HUB_OFFLINE forbids to download it; "
        "download it first, or give a folder",
    )


def _missing(folder: Path) -> str | None:
    """The first file of weights that is not there."""
    if any((folder / file).is_file() for file in WHOLE):
        return None
    for index in PARTS:
        try:
            parts = set(read_json(folder / index, "a base").get("weight_map", {}).values())
        except FileError:
            continue
        return next((part for part in sorted(parts) if not (folder / part).is_file()), None)
    return WHOLE[0]

"""`--register FILE`: a trained adapter into an adapters.yaml; before it is trained, whether it may go there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters import (
    Adapter,
    ConfigError,
    Stack,
    check_writable,
    label,
    load,
    save_adapter,
    seen_from,
    with_adapters,
)
from serve.lint.check import lint_base
from serve.lint.files import rank_faults
from serve.lint.finding import errors
from serve.lint.peft import largest_rank, problems
from training.base import Base
from training.errors import Stopped
from training.recipe import Recipe


def check_register(file: Path, name: str, base: Base, recipe: Recipe) -> None:
    """Raises ConfigError unless the adapter can be written there, and be served from there."""
    check_stack(load(file, "; --register takes a stack that there is"), name, base, recipe)
    check_writable(file, "--register adds the adapter there")


def check_stack(stack: Stack, name: str, base: Base, recipe: Recipe, limit: int | None = None) -> None:
    """Raises ConfigError unless a stack can take an adapter of that name, rank and base.

    `limit` is the --max-lora-rank of an engine that runs already.
    """
    with_adapters(stack, {**stack.adapters, name: Adapter(path=name)})
    if (known := stack.adapters.get(name)) and known.versions:
        there = ", ".join(known.versions)
        raise stack.error(f"adapters.{name}.versions", f"it has {there}; train under another --name")
    _check_base(stack, base)
    for finding in errors(lint_base(stack, base.config)):
        raise stack.error(finding.key, finding.text)
    for fault in rank_faults(stack, rank_of(recipe), limit):
        raise stack.error(f"adapters.{name}", fault)


def check_free(stack: Stack, name: str, folder: Path) -> None:
    """Raises ConfigError where the stack has another adapter of that name."""
    known = stack.adapters.get(name)
    if known and stack.below(known.path) != folder.resolve():
        advice = "--force puts this one in its place, or train under another --name"
        raise stack.error(f"adapters.{name}", f"is another adapter, {known.path}; {advice}")


def register(file: Path, name: str, folder: Path, recipe: Recipe) -> str:
    """Add the adapter to the stack's file, or update the one of that name there; a line that says what was done.

    Its label is left to its manifest.json, so that training it again needs no edit; one that somebody wrote into
    the file stays, as does all else that the recipe does not say. Raises Stopped.
    """
    try:
        before = load(file)
        old = before.adapters.get(name)
        known = old.model_dump(mode="json", exclude_defaults=True) if old else {}
        path = seen_from(file, str(folder.resolve()))
        adapter = Adapter(**{**known, **said(recipe), "path": path})
        words = label(with_adapters(before, {**before.adapters, name: adapter}), name)
        save_adapter(file, name, adapter)
    except ConfigError as error:
        raise Stopped(f"{error}; the adapter is kept in {folder}") from None
    done = "as it was" if adapter == old else "updated" if old else "added"
    return f"{file}: adapters.{name} is {done}, with path {path} and its label from {words.source}"


def rank_of(recipe: Recipe) -> int:
    """0 where its adapter_config.json is wrong anyway."""
    lora = dict(recipe.lora)
    return 0 if any(problems(lora)) else largest_rank(lora)


def said(recipe: Recipe) -> dict[str, Any]:
    """The keys of an adapter that a recipe decides, as JSON; what it leaves out is left as it is."""
    return recipe.model_dump(mode="json", include={"tags", "sampling", "system_prompt"}, exclude_defaults=True)


def _check_base(stack: Stack, base: Base) -> None:
    there, advice = str(stack.base_ref()), f"; --stack {stack.file} trains for it"
    if base.model != there:
        raise stack.error("base.model", f"is {there}, and the adapter's is {base.model}{advice}")
    if str(stack.engine_args.get("revision") or "") != (base.revision or ""):
        raise stack.error("engine.args.revision", f"is not the training's, {base.revision or 'none'}{advice}")
    template = stack.chat_template()
    if (template.read_text(encoding="utf-8") if template else None) != base.chat_template:
        raise stack.error("base.chat_template", f"differs from that of the training{advice}")

"""Does every file that a stack names exist and fit, before anything heavy starts?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adapters import Stack, path_key
from serve.lint import library
from serve.lint.files import CONFIG, FileError, here, lint_adapter, read_json
from serve.lint.finding import Finding, errors
from serve.lint.peft import LORA_RANKS
from serve.lint.shape import shape

__all__ = ["Finding", "Report", "lint", "lint_adapter", "lint_base"]

HEAD_LIMIT = 258_048
"""Words in the vocabulary of a base whose head vLLM adapts (lora/layers/logits_processor.py)."""


@dataclass(frozen=True)
class Report:
    """What was found, the rank of every adapter whose files are on this machine, and the base's config.json."""

    findings: tuple[Finding, ...]
    ranks: dict[str, int]
    base: dict[str, Any] | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Only those that stop the start."""
        return errors(self.findings)


def lint(stack: Stack) -> Report:
    """Check base and adapters. Raises ConfigError for a reference that is neither folder nor hub id."""
    stack.chat_template()
    findings = list[Finding]()
    ranks: dict[str, int] = {}
    base = None
    try:
        if folder := here(stack.base_ref(), "config.json"):
            base = read_json(folder / "config.json", "the base")
        else:
            findings.append(_on_the_hub("base.model", stack.base.model))
    except FileError as error:
        findings.append(Finding("base.model", str(error)))
    findings += lint_base(stack, base)
    for name in stack.adapters:
        found = here(stack.adapter_ref(name), CONFIG)
        if found is None:
            findings.append(_on_the_hub(path_key(name), stack.adapters[name].path))
            continue
        own, rank = lint_adapter(stack, name, found, base)
        findings += own
        if rank is not None:
            ranks[name] = rank
    findings += library.check(stack, base)
    return Report(tuple(findings), ranks, base)


def lint_base(stack: Stack, base: dict[str, Any] | None) -> tuple[Finding, ...]:
    """What stands in the way of every adapter. `base` is the base's config.json (None: it is not here)."""
    return (*_rank_limit(stack), *(_base(base) if base else ()))


def _on_the_hub(key: str, name: str) -> Finding:
    return Finding(
        key, f"{name} is on the hub, and not on this machine yet: checked when it is loaded", error=False
    )


def _rank_limit(stack: Stack) -> Iterator[Finding]:
    asked = stack.engine_args.get("max-lora-rank")
    if asked is not None and asked not in LORA_RANKS:
        valid = ", ".join(map(str, LORA_RANKS))
        yield Finding("engine.args.max-lora-rank", f"{asked!r} is none of vLLM's: {valid}")


def _base(config: dict[str, Any]) -> Iterator[Finding]:
    known = shape(config)
    if known and not known.serves_lora:
        yield Finding("base.model", f"vLLM serves no LoRA adapters on {config['model_type']}; take another base")
    if known and known.serves_embeddings and known.embedding[1][0] > HEAD_LIMIT:
        yield Finding(
            "base.model", f"its vocabulary, {known.embedding[1][0]}, is above vLLM's limit with LoRA, {HEAD_LIMIT}"
        )

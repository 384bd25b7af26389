"""`check_adapter(base, name, folder)`: what `serve check` would say of an adapter that no stack has yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import adapters
from adapters import Adapter, ConfigError, Stack, with_adapters
from serve.lint.check import lint_adapter, lint_base
from serve.lint.finding import Finding, errors
from serve.lint.library import misplaced
from training.base import Base


def check_adapter(base: Base, name: str, folder: Path) -> tuple[Finding, ...]:
    """All that stands in the way of serving the adapter in `folder` on its base, from its files alone."""
    try:
        stack = _with(base, name, folder)
    except ConfigError as error:
        return (Finding(f"adapters.{name}", str(error)),)
    findings, _ = lint_adapter(stack, name, folder, base.config)
    # Without a stack it is merged rather than served, and its base is then no fault of its own.
    bases = (
        replace(finding, error=finding.error and base.stack is not None)
        for finding in lint_base(stack, base.config)
    )
    return (*bases, *findings, *misplaced(stack, name, folder))


def check_name(base: Base, name: str) -> None:
    """Before the training. Raises ConfigError for a name that is taken, and for a stack that serves no LoRA."""
    stack = _with(base, name, Path())
    for finding in errors(lint_base(stack, base.config)) if base.stack else ():
        raise stack.error(finding.key, finding.text)


def _with(base: Base, name: str, folder: Path) -> Stack:
    """The base's stack with the adapter in it, or one that holds nothing else."""
    trained = {name: Adapter(path=str(folder.resolve()))}
    if base.stack:
        return with_adapters(base.stack, {**base.stack.adapters, **trained})
    alone = adapters.Base(model=base.model, name=f"{name}-base")
    return Stack(file=Path("adapters.yaml"), base=alone, adapters=trained)

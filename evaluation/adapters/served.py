"""What a running stack serves, and which version of it: answers of another one are not its own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters import AUTO, ConfigError, Stack
from evaluation.kept import digest


@dataclass(frozen=True)
class Served:
    """The models to ask, by kind; `prompted` have a system prompt of their own."""

    base: str
    adapters: tuple[str, ...]
    lag: tuple[str, ...]
    prompted: frozenset[str]
    versions: Mapping[str, str]

    @property
    def models(self) -> tuple[str, ...]:
        """All that can be asked for by name."""
        return (self.base, *self.adapters, *self.lag)

    def form(self, model: str) -> str:
        """The model as which a question has to be tokenised: those without a system prompt share the base's."""
        return model if model in self.prompted else self.base


def served(stack: Stack, names: Sequence[str]) -> Served:
    """Of the names that the router lists."""
    base = stack.base.name
    lag = tuple(name for name in names if name in stack.lag)
    fixed = tuple(name for name in names if name not in (AUTO, base, *lag))
    # One that was added to the running stack may have a system prompt that its file does not tell.
    prompted = frozenset(
        name for name in fixed if name not in stack.adapters or stack.adapters[name].system_prompt
    )
    return Served(base, fixed, lag, prompted, _versions(stack, fixed))


def _versions(stack: Stack, fixed: Sequence[str]) -> dict[str, str]:
    base = digest(_files(stack, stack.base.model), _template(stack), stack.engine_args)
    versions = {stack.base.name: base}
    for name in fixed:
        adapter = stack.adapters.get(name)
        # Of one that the file does not know, nobody can tell here whether its weights are still the same.
        known = (_files(stack, adapter.path), adapter.model_dump()) if adapter else (time.time_ns(),)
        versions[name] = digest(base, *known)
    for name, lag in stack.lag.items():
        versions[name] = digest(*versions.values(), lag.model_dump())
    return versions | {AUTO: digest(versions, stack.router.model_dump())}


def _files(stack: Stack, text: str) -> list[str]:
    """A folder's files by name, size and time; of a hub id its name."""
    folder: Path = stack.below(text)
    if not folder.is_dir():
        return [text]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    states = ((file.relative_to(folder), file.stat()) for file in files)
    return [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]


def _template(stack: Stack) -> str:
    try:
        file = stack.chat_template()
    except ConfigError:  # the stack that runs has one, wherever it is
        return ""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""

"""Everything that can be known before the engine starts: its command, what was derived, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adapters import ConfigError, Stack
from serve.engine import base, memory, quantization
from serve.engine.command import Command, engine_command
from serve.engine.machine import Build, Machine, installed_build, this_machine
from serve.lint.check import lint
from serve.lint.finding import Finding

RULES = "0.32."
"""The vLLM whose rules the lint holds; its tests hold them against the classes of the one that is installed."""


@dataclass(frozen=True)
class Preflight:
    """`command` is None where a running engine is used; `broken`: adapters that will not be served, and why."""

    command: Command | None
    notes: tuple[str, ...]
    broken: tuple[str, ...] = ()


def preflight(stack: Stack) -> Preflight:
    """Look at this machine, the base and the adapters.

    Raises ConfigError, one line per finding, for anything that would make the engine's start fail. A broken
    adapter does not: the others are served.
    """
    if stack.engine.url:
        return Preflight(None, tuple(_remote(stack)))
    try:
        build = installed_build()
    except RuntimeError as error:
        raise ConfigError(str(error)) from None
    return _local(stack, build, this_machine())


def _remote(stack: Stack) -> Iterator[str]:
    yield (
        f"engine: none started, {stack.engine.url} is used (engine.url): its arguments, its memory, base and "
        "adapters' files are its own machine's, and not checked here"
    )
    if stack.lag:
        yield f"engine: {', '.join(stack.lag)}: up where that engine lists it"


def _local(stack: Stack, build: Build, machine: Machine) -> Preflight:
    report = lint(stack)
    methods = quantization.known_methods()
    findings = (*report.findings, *quantization.check(stack, report.base, build, machine, methods))
    wrong = [finding for finding in findings if finding.error]
    broken = tuple(_line(stack, finding) for finding in wrong if finding.key.startswith("adapters."))
    if fatal := [_line(stack, finding) for finding in wrong if not finding.key.startswith("adapters.")]:
        raise ConfigError("\n".join((*fatal, *broken)))
    command = engine_command(stack, build, report.ranks, machine, report.base)
    notes = [_line(stack, finding) for finding in findings if not finding.error]
    if not build.version.startswith(RULES):
        notes.append(f"lint: it holds the rules of vLLM {RULES}x, and this is {build.version}")
    notes += command.notes
    if command.estimate:
        notes += memory.lines(command.estimate, command.room, len(stack.adapters))
        if short := memory.shortage(stack, command.estimate, build, machine):
            notes.append(f"warning: {short}")
    else:
        notes.append(_no_estimate(stack, report.base))
    return Preflight(command, tuple(notes), broken)


def _no_estimate(stack: Stack, config: dict[str, Any] | None) -> str:
    if config is None:
        return "memory: not estimated: the base is not on this machine yet"
    files = memory.size_of(base.in_files(stack))
    return f"memory: the base's files are {files}; the rest of {config.get('model_type')} is not known here"


def _line(stack: Stack, finding: Finding) -> str:
    return str(stack.error(finding.key, finding.text))

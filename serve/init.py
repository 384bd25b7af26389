"""`python -m serve init DIR [--base MODEL] [--output adapters.yaml]`: a stack written from a folder of adapters.

Every adapter below DIR is checked as `python -m serve check` would. What can be derived is shown as a comment;
what cannot be served is a comment too, with the reason. A file that exists is never written over.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters import RESERVED, Adapter, Base, ConfigError, Stack, label
from serve import draft
from serve.draft import Found
from serve.lint.files import CONFIG, PICKLES, WEIGHTS, FileError, base_config, lint_adapter, read_json
from serve.lint.finding import errors


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 written, 2 nothing could be written, and why."""
    parser = argparse.ArgumentParser(prog="python -m serve init", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="every adapter below it is taken")
    parser.add_argument("--base", help="hub id or folder (default: what the adapters say they were trained on)")
    parser.add_argument("--output", type=Path, default=Path("adapters.yaml"), help="default: %(default)s")
    told = parser.parse_args(arguments)
    try:
        for line in write(told.folder, told.base, told.output):
            print(line)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def write(folder: Path, base: str | None, output: Path) -> list[str]:
    """Write `output`, and say in a few lines what it holds. Raises ConfigError, and then writes nothing."""
    if output.exists():
        raise ConfigError(f"{output}: exists already; give another name with --output, or move it away")
    folders = adapter_folders(folder)
    if not folders:
        raise ConfigError(f"{folder}: no adapter below it (a folder with {CONFIG})")
    stack = skeleton(folder, folders, base or _trained_on(folders), output)
    config = base_config(stack)
    found = [_found(stack, name, config) for name in stack.adapters]
    served = [one for one in found if not one.refused]
    refused = [f"{output}: {one.name} is left out: {one.refused}" for one in found if one.refused]
    if not served:
        raise ConfigError("\n".join([*refused, f"{output}: not written: no adapter in {folder} can be served"]))
    kept = {one.name: stack.adapters[one.name] for one in served}
    text = "\n".join(draft.lines(stack.model_copy(update={"adapters": kept}), folder, found, config)) + "\n"
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}") from None
    names = ", ".join(kept)
    return [
        *refused,
        f"{output}: {stack.base.model} with {names}",
        f"next: python -m serve check --config {output}",
    ]


def adapter_folders(folder: Path) -> list[Path]:
    """Folders with an adapter's files; what lies below one (a training's checkpoints) is not looked at."""
    found: list[Path] = []
    files = [file for name in (CONFIG, WEIGHTS, *PICKLES) for file in folder.rglob(name)]
    for one in sorted({file.parent for file in files}):
        if not any(other in one.parents for other in found):
            found.append(one)
    return found


def skeleton(folder: Path, folders: Sequence[Path], base: str, output: Path) -> Stack:
    """A stack of all of them, each under a name of its own. Raises ConfigError where the base is none."""
    model = draft.relative(Path(base), output) if Path(base).expanduser().is_dir() else base
    name = _name(base.rstrip("/").rpartition("/")[2].lower(), {*RESERVED})
    taken = {*RESERVED, name}
    adapters = {}
    for one in folders:
        own = _name("-".join(one.relative_to(folder).parts) or folder.resolve().name, taken)
        taken.add(own)
        adapters[own] = Adapter(path=draft.relative(one, output))
    stack = Stack(file=output, base=Base(model=model, name=name), adapters=adapters)
    try:
        stack.base_ref()
    except ConfigError:
        raise ConfigError(f"--base {base}: neither a folder nor a hub id (owner/name)") from None
    return stack


def _trained_on(folders: Sequence[Path]) -> str:
    """The base that all adapters name. Raises ConfigError where they name none, or several."""
    named: dict[str, Path] = {}
    for one in folders:
        try:
            base = read_json(one / CONFIG, "a PEFT adapter").get("base_model_name_or_path")
        except FileError:
            continue
        if isinstance(base, str) and base:
            named.setdefault(base, one)
    if len(named) == 1:
        return next(iter(named))
    if not named:
        raise ConfigError("no adapter names its base: give it with --base")
    several = ", ".join(f"{base} ({one.name})" for base, one in named.items())
    raise ConfigError(f"the adapters name several bases: {several}; give one with --base")


def _name(text: str, taken: set[str]) -> str:
    """What a client can ask for: letters, digits, dots, dashes and underscores, and unlike all others."""
    name = re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", re.sub(r"[^A-Za-z0-9._-]+", "-", text)) or "adapter"
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}-{number}"
    return free


def _found(stack: Stack, name: str, config: dict[str, Any] | None) -> Found:
    folder = stack.adapter_ref(name).folder or Path()
    findings, rank = lint_adapter(stack, name, folder, config)
    path, reason = stack.adapters[name].path, "; ".join(finding.text for finding in errors(findings))
    try:
        said = label(stack, name)
    except ConfigError:
        return Found(name, path, rank, reason)
    return Found(name, path, rank, reason, " ".join(said.text.split()), said.source)

"""An adapters.yaml as text, for `python -m serve init`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapters import Stack
from serve.engine.base import saved_in
from serve.engine.command import engine_command
from serve.engine.machine import installed_build, this_machine
from serve.lint.files import FileError, read_json

COLUMN = 43
TEMPLATE = Path(__file__).parent.parent / "templates" / "instruct.jinja"
NO_LABEL = "nothing in its files says what it is about: write its topics here"


@dataclass(frozen=True)
class Found:
    """One adapter of the folder; `refused` is why it cannot be served, "" where it can."""

    name: str
    path: str
    rank: int | None
    refused: str
    label: str = ""
    source: str = ""


def lines(stack: Stack, folder: Path, found: Sequence[Found], config: dict[str, Any] | None) -> Iterator[str]:
    """The file's lines; `config` is the base's config.json, where it is here."""
    yield f"# Written by `python -m serve init {folder}`. What is commented out is derived; to decide it, set it."
    yield "# Every key is explained in LoRA-Select's own adapters.yaml; `python -m serve check` explains a stack."
    yield "base:"
    yield f"  model: {_word(stack.base.model)}"
    yield _beside(f"  name: {_word(stack.base.name)}", "what clients call the bare base")
    yield from _template(stack)
    yield "engine:"
    yield from _derived(stack, {one.name: one.rank for one in found if one.rank and not one.refused}, config)
    yield "router:"
    yield _beside("  # port: 8000", "the public endpoint, on this machine only: host: 0.0.0.0 opens it")
    yield _beside("  # classifier: embedding", "or nli, scoring, or a list of them")
    yield _beside("  # threshold: 0.5", "an adapter less probable than this loses to the base")
    yield "adapters:"
    for one in found:
        yield from _refused(one) if one.refused else _served(one)


def _served(one: Found) -> Iterator[str]:
    yield f"  {_word(one.name)}:"
    yield _beside(f"    path: {_word(one.path)}", f"rank {one.rank}")
    if one.label:
        yield _beside(f"    # label: {_word(one.label)}", f"from {one.source}")
    else:
        yield _beside(f"    label: {_word(re.sub(r'[._-]+', ' ', one.name).strip())}", NO_LABEL)


def _refused(one: Found) -> Iterator[str]:
    yield _beside(f"  # {one.name}:", f"not served: {one.refused}")
    yield f"  #   path: {_word(one.path)}"


def _template(stack: Stack) -> Iterator[str]:
    folder = stack.base_ref().folder
    if folder is None:
        yield _beside("  # chat_template: FILE", "needed where the base brings none: the one of the training")
        return
    own = (folder / "chat_template.jinja").is_file()
    with contextlib.suppress(FileError):
        own = own or bool(read_json(folder / "tokenizer_config.json", "a tokenizer").get("chat_template"))
    if own:
        yield _beside("  # chat_template: null", "the tokenizer's own")
    else:
        path = _word(relative(TEMPLATE, stack.file))
        yield _beside(f"  chat_template: {path}", "the base brings none: name the one of the training")


def _derived(stack: Stack, ranks: dict[str, int], config: dict[str, Any] | None) -> Iterator[str]:
    yield _beside("  # port: 8001", "vLLM, on this machine's loopback only")
    try:
        command = engine_command(stack, installed_build(), ranks, this_machine(), config)
    except RuntimeError:
        return
    yield _beside(f"  # max_loras: {command.room.slots}", f"{len(stack.adapters)} adapters, and one for an update")
    yield "  args:"
    yield _beside(f"    # max-lora-rank: {command.room.rank}", "holds every adapter")
    yield _beside(f"    # max-cpu-loras: {command.room.host}", "adapters in host memory")
    if command.estimate:
        yield _beside(f"    # max-model-len: {command.estimate.length}", "tokens of a request and its answer")
        saved = saved_in(config or {}) or "a type it does not name"
        yield _beside(f"    # dtype: {command.estimate.dtype}", f"the base is saved in {saved}")


def _word(text: str) -> str:
    """A YAML scalar on one line, quoted where it must be."""
    return str(yaml.safe_dump(text, width=float("inf"), allow_unicode=True)).splitlines()[0]


def _beside(line: str, comment: str) -> str:
    return f"{line:<{COLUMN - 1}} # {' '.join(comment.split())}"


def relative(path: Path, output: Path) -> str:
    """As the file names it: relative paths are relative to the file."""
    return os.path.relpath(path.expanduser().resolve(), output.resolve().parent)

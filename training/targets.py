"""Which modules of a base an adapter changes: `target_modules: auto`, and whether those that are named exist."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from serve.lint.shape import READERS, Shape, shape

AUTO = "auto"
ALL = "all-linear"
"""PEFT's word for every linear module but the head."""

Config = dict[str, Any]


def attention(config: Config) -> list[str]:
    """The attention projections of the base's family. Raises ValueError for an unknown one."""
    if known := shape(config):
        return _projections(known)
    kind = config.get("model_type")
    if kind in READERS:
        raise ValueError(f'target_modules: "{AUTO}": the base\'s config.json lacks sizes of a {kind}; give names')
    families = ", ".join(sorted(READERS))
    raise ValueError(f'target_modules: "{AUTO}" knows {families}, and the base is a {kind}; give names')


def _projections(known: Shape) -> list[str]:
    """Their last names, which everybody uses, unless one is that of another module too: GPT-2 has two c_proj."""
    ours = [name for name in known.linear if not name.startswith("mlp.")]
    others = {_last(name) for name in known.linear if name not in ours}
    short = [_last(name) for name in ours]
    return ours if others & set(short) else short


def unknown(targets: str | Iterable[str], there: Iterable[str]) -> Iterator[str]:
    """What is wrong with named targets, as PEFT matches them, which is content when one of several is found."""
    modules = list(there)
    # Those of the layers: vLLM adapts embedding and head of few bases.
    short = list(dict.fromkeys(_last(module) for module in modules if re.search(r"\.\d+\.", module)))
    exist = f"there are {', '.join(short)}"
    if isinstance(targets, str):
        try:
            if targets != ALL and not any(re.fullmatch(targets, module) for module in modules):
                yield f"target_modules: {targets!r} matches no module of the base; {exist}"
        except re.error as error:
            yield f"target_modules: {targets!r} is no regular expression: {error}"
        return
    for name in sorted(map(str, targets)):
        if not any(module == name or module.endswith(f".{name}") for module in modules):
            near = difflib.get_close_matches(name, short, n=1)
            hint = f'did you mean "{near[0]}"? ' if near else ""
            yield f'target_modules: no module "{name}" in the base; {hint}{exist}'


def _last(name: str) -> str:
    return name.rpartition(".")[2]

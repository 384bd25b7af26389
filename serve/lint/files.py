"""One adapter's files: does vLLM serve them, on this base, as they were trained?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters import Ref, Stack, path_key, split
from serve.lint import fit, peft
from serve.lint.finding import Finding
from serve.lint.peft import LORA_RANKS
from serve.lint.shape import Shape, shape
from serve.lint.weights import WeightsError, header, look

CONFIG, WEIGHTS, PICKLES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    ("adapter_model.bin", "adapter_model.pt"),
)


class FileError(Exception):
    """A file that is missing or cannot be understood, in one line."""


def lint_adapter(
    stack: Stack, name: str, folder: Path, base: dict[str, Any] | None = None, limit: int | None = None
) -> tuple[tuple[Finding, ...], int | None]:
    """What is wrong with an adapter's files, and its rank where the config tells one.

    `base` is the base's config.json (None: read it, if it is on this machine), `limit` the --max-lora-rank of an
    engine that runs already (None: what the stack allows). The weights are read a piece at a time.
    """
    key = path_key(name)
    base = base if base is not None else base_config(stack)
    try:
        config = read_json(folder / CONFIG, "a PEFT adapter")
        if faults := list(peft.problems(config)):
            return tuple(Finding(key, f"{folder}/{CONFIG}: {fault}") for fault in faults), None
        findings = [Finding(key, fault) for fault in rank_faults(stack, peft.largest_rank(config), limit)]
        findings = findings or list(_weights(stack, name, folder, config, shape(base) if base else None))
    except (FileError, WeightsError) as error:
        return (Finding(key, str(error)),), None
    if not any(finding.error for finding in findings):
        findings += _trained_on(stack, key, config, base)
    return tuple(findings), peft.largest_rank(config)


def rank_faults(stack: Stack, rank: int, limit: int | None = None) -> Iterator[str]:
    """Why an adapter of that rank is not served, if it is not; `limit` as above."""
    asked = stack.engine_args.get("max-lora-rank")
    if limit is not None and rank > limit:
        need = next((allowed for allowed in LORA_RANKS if allowed >= rank), None)
        advice = f"; set engine.args.max-lora-rank to {need} and start again" if need else ""
        yield f"rank {rank} is above the running engine's --max-lora-rank, {limit}{advice}"
    elif isinstance(asked, int) and rank > asked:
        yield f"rank {rank} is above engine.args.max-lora-rank, {asked}; raise it, or remove that key"
    elif rank > LORA_RANKS[-1]:
        yield f"rank {rank} is above vLLM's limit, {LORA_RANKS[-1]}; train with a lower one"


def base_config(stack: Stack) -> dict[str, Any] | None:
    """The base's config.json, where its folder or the hub's cache on this machine has one that can be read."""
    try:
        folder = here(stack.base_ref(), "config.json")
        return read_json(folder / "config.json", "the base") if folder else None
    except FileError:
        return None


def here(reference: Ref, file: str) -> Path | None:
    """Its folder, or that of the hub's cache which has `file`; None where it would have to be downloaded."""
    if reference.folder:
        return reference.folder
    from huggingface_hub import try_to_load_from_cache  # takes 0.3 s, and few stacks need it

    found = try_to_load_from_cache(reference.name, file, revision=reference.revision)
    return Path(found).parent if isinstance(found, str) else None


def read_json(file: Path, what: str) -> dict[str, Any]:
    """A JSON object. Raises FileError."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"no {file.name} in {file.parent}: not the folder of {what}") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{file} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise FileError(f"{file} is not a JSON object")
    return data


def _weights(
    stack: Stack, name: str, folder: Path, config: dict[str, Any], base: Shape | None
) -> Iterator[Finding]:
    key, file = path_key(name), folder / WEIGHTS
    if not file.is_file():
        yield _pickle(stack, name, folder)
        return
    targets = stack.engine_args.get("lora-target-modules")
    tensors = header(file)
    trained_on = config.get("base_model_name_or_path")
    misfits = list(fit.misfits(tensors, config, base, [targets] if isinstance(targets, str) else targets))
    for misfit in misfits:
        whose = f"trained on {trained_on}, which is not this base ({stack.base.model}): "
        yield Finding(key, (whose if "the base" in misfit else "") + misfit)
    if not misfits and (fault := _values(file)):
        yield Finding(key, fault)


def _values(file: Path) -> str:
    """What is wrong with the numbers themselves; "" where nothing is."""
    found, _ = fit.pairs(header(file))
    works = False
    for pair in found.values():
        zeros = []
        for tensor in pair.sides.values():
            finite, zero = look(file, tensor)
            if not finite:
                return (
                    f"{tensor.name} holds values that are not finite: the training diverged; take an earlier one"
                )
            zeros.append(zero)
        works = works or not any(zeros)
    return "" if works else "every lora_B is zero, so it does nothing: saved before it was trained?"


def _pickle(stack: Stack, name: str, folder: Path) -> Finding:
    key = path_key(name)
    file = next((file for file in PICKLES if (folder / file).is_file()), None)
    if file is None:
        return Finding(key, f"no {WEIGHTS} in {folder}")
    if (adapter := stack.adapters.get(name)) and adapter.allow_pickle:
        return Finding(key, f"{file} is a pickle: its tensors are checked by vLLM only", error=False)
    return Finding(
        key,
        f"{folder}/{file} is a pickle, which can run code; save it as safetensors, or set "
        f"adapters.{split(name)[0]}.allow_pickle: true",
    )


def _trained_on(stack: Stack, key: str, config: dict[str, Any], base: dict[str, Any] | None) -> Iterator[Finding]:
    """Two names may mean one base (a quantised copy), so a difference is told and stops nothing."""
    named = config.get("base_model_name_or_path")
    if stack.base_ref().folder or named in (None, "", stack.base.model):
        return
    fits = "its shapes fit" if base and shape(base) else "whether it fits is seen at the load only"
    yield Finding(key, f"trained on {named}, the base is {stack.base.model}; {fits}", error=False)

"""Does every file that a stack names exist and fit, before anything heavy starts?"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from adapters import Ref, Stack
from serve.engine import LORA_RANKS

PLAIN = {"use_dora": False, "bias": "none", "lora_bias": False}
"""Options that vLLM's LoRA knows with this value only."""

_TENSOR = re.compile(r"\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight$")


@dataclass(frozen=True)
class Finding:
    """One line about one key: an error stops the start, a note says what could not be checked."""

    key: str
    text: str
    error: bool = True


@dataclass(frozen=True)
class Report:
    """Findings of a stack, and the rank of every adapter whose files are on this machine."""

    findings: tuple[Finding, ...]
    ranks: dict[str, int]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Only those that stop the start."""
        return tuple(finding for finding in self.findings if finding.error)


def lint(stack: Stack) -> Report:
    """Check base and adapters. Raises ConfigError for a reference that is neither folder nor hub id."""
    findings: list[Finding] = []
    ranks: dict[str, int] = {}
    stack.chat_template()
    base = _base_config(stack.base_ref(), findings)
    for name in stack.adapters:
        key = f"adapters.{name}.path"
        reference = stack.adapter_ref(name)
        if reference.folder is None:
            findings.append(Finding(key, f"{reference} is on the hub: checked by vLLM at start only", error=False))
            continue
        config = _adapter_config(reference.folder, key, findings)
        if config is None:
            continue
        ranks[name] = max([config["r"], *(config.get("rank_pattern") or {}).values()])
        findings += _rank(stack, key, ranks[name])
        findings += _fits(stack, key, reference.folder, config, base)
    return Report(tuple(findings), ranks)


def _base_config(base: Ref, findings: list[Finding]) -> dict[str, Any] | None:
    if base.folder is None:
        findings.append(Finding("base.model", f"{base} is on the hub: checked by vLLM at start only", error=False))
        return None
    return _json(base.folder / "config.json", "base.model", "the base", findings)


def _adapter_config(folder: Path, key: str, findings: list[Finding]) -> dict[str, Any] | None:
    config = _json(folder / "adapter_config.json", key, "a PEFT adapter", findings)
    if config is None:
        return None
    if problem := _unservable(config):
        findings.append(Finding(key, f"{folder}/adapter_config.json: {problem}"))
        return None
    if not (folder / "adapter_model.safetensors").is_file():
        findings.append(Finding(key, f"no adapter_model.safetensors in {folder}"))
        return None
    return config


def _unservable(config: dict[str, Any]) -> str:
    """What vLLM's peft_helper would refuse, or stumble over; "" when nothing."""
    if config.get("peft_type") != "LORA":
        return f"not a LoRA adapter (peft_type {config.get('peft_type')!r})"
    if not _is_rank(config.get("r")):
        return f"r must be a whole number from 1 up (is {config.get('r')!r})"
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict) or not all(map(_is_rank, pattern.values())):
        return f"rank_pattern must map module names to ranks (is {pattern!r})"
    for option, plain in PLAIN.items():
        if config.get(option) not in (None, plain):
            return f"vLLM does not serve {option} {config[option]!r}"
    return ""


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _json(file: Path, key: str, what: str, findings: list[Finding]) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        findings.append(Finding(key, f"no {file.name} in {file.parent}: not the folder of {what}"))
        return None
    except (OSError, ValueError) as error:
        findings.append(Finding(key, f"{file} cannot be read: {error}"))
        return None
    if not isinstance(data, dict):
        findings.append(Finding(key, f"{file} is not a JSON object"))
        return None
    return data


def _rank(stack: Stack, key: str, rank: int) -> list[Finding]:
    limit = stack.engine_args.get("max-lora-rank", LORA_RANKS[-1])
    if not isinstance(limit, int) or rank <= limit:
        return []
    source = "engine.args.max-lora-rank" if "max-lora-rank" in stack.engine_args else "vLLM's limit"
    return [Finding(key, f"rank {rank} is above {source}, {limit}")]


def _fits(
    stack: Stack, key: str, folder: Path, config: dict[str, Any], base: dict[str, Any] | None
) -> list[Finding]:
    """Shapes decide where the base's config is here; otherwise only the names can be compared."""
    trained_on = config.get("base_model_name_or_path")
    if base is None:
        if trained_on in (None, stack.base.model):
            return []
        return [Finding(key, f"trained on {trained_on}, the base is {stack.base.model}", error=False)]
    widths = _widths(base)
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="numpy") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        return [Finding(key, f"{folder}/adapter_model.safetensors cannot be read: {error}")]
    for name, shape in shapes.items():
        if problem := _misfit(name, shape, widths, base):
            return [
                Finding(key, f"trained on {trained_on}, which is not this base ({stack.base.model}): {problem}")
            ]
    return []


def _misfit(name: str, shape: tuple[int, ...], widths: dict[str, tuple[int, int]], base: dict[str, Any]) -> str:
    match = _TENSOR.search(name)
    if match is None or match[2] not in widths:
        return ""
    layer, module, side = int(match[1]), match[2], match[3]
    layers = base.get("num_hidden_layers")
    if isinstance(layers, int) and layer >= layers:
        return f"it has a layer {layer}, the base has {layers} layers"
    expected = widths[module][side == "B"]
    actual = shape[1] if side == "A" else shape[0]
    what = "reads" if side == "A" else "writes"
    return "" if actual == expected else f"its {module} {what} {actual} values, the base's {expected}"


def _widths(base: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(in, out) of every projection of a Llama-shaped base; others are left to vLLM."""
    try:
        hidden, middle, heads = base["hidden_size"], base["intermediate_size"], base["num_attention_heads"]
        head = base.get("head_dim") or hidden // heads
        keys = (base.get("num_key_value_heads") or heads) * head
        queries = heads * head
    except (KeyError, TypeError, ZeroDivisionError):
        return {}
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, middle),
        "up_proj": (hidden, middle),
        "down_proj": (middle, hidden),
    }

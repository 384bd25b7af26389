"""A quantised base: does the vLLM that is installed know how, and can it do that here?"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adapters import Stack
from serve.engine.machine import Build, Machine
from serve.lint.finding import Finding

SAVED = (
    "awq",
    "auto_awq",
    "awq_marlin",
    "gptq",
    "auto_gptq",
    "gptq_marlin",
    "compressed-tensors",
    "quark",
    "mxfp4",
)
"""Those that need a base which was saved so; the others quantise a plain base while it loads, or may do either."""

NOT_ON_CPU = ("fp8", "fp8_per_tensor", "mxfp8")
ON_CPU = ("int8_per_channel_weight_only", "fp8_per_block", "fp8_per_channel", "bitsandbytes", "awq", "gptq")
"""Tried with the CPU build 0.32: those that lack a kernel, and those that answer, adapters included."""

CAPABILITY = {
    "awq": 75, "auto_awq": 75, "gptq": 60, "auto_gptq": 60, "fp8": 75, "fbgemm_fp8": 80, "experts_int8": 80,
    "fp_quant": 100, "humming": 75, "moe_wna16": 70, "mxfp4": 80, "torchao": 75, "modelopt": 80,
}  # fmt: skip
"""The least that a GPU must be capable of, by vLLM's own classes (get_min_capability)."""

DEPRECATED = ("fbgemm_fp8", "fp_quant")
PLUGINS = {"bitsandbytes": "vllm-bnb-plugin", "gguf": "vllm-gguf-plugin"}
"""Those that left vLLM's core in 0.28, and who brings them back."""


def method(stack: Stack, base: Mapping[str, Any] | None) -> tuple[str, str]:
    """The base's quantisation, and the key that asks for it; "" for none."""
    if asked := stack.engine_args.get("quantization"):
        return str(asked), "engine.args.quantization"
    saved = (base or {}).get("quantization_config") or {}
    return str(saved.get("quant_method") or ""), "base.model"


def check(
    stack: Stack, base: Mapping[str, Any] | None, build: Build, machine: Machine, known: tuple[str, ...]
) -> Iterator[Finding]:
    """`known` are the methods of the installed vLLM, `base` is the base's config.json where it is here."""
    name, key = method(stack, base)
    if not name:
        return
    if name not in known and not _brought(name, machine):
        yield Finding(key, f"vLLM {build.version} knows no quantization {name!r}; {_advice(name, known)}")
        return
    saved = ((base or {}).get("quantization_config") or {}).get("quant_method")
    if base is not None and name in SAVED and not saved:
        yield Finding(key, f"{name} needs a base that was saved so, and {stack.base.model} is not quantised")
    if name in DEPRECATED and not stack.engine_args.get("allow-deprecated-quantization"):
        yield Finding(
            key, f"{name} is deprecated in vLLM; take another, or set allow-deprecated-quantization: true"
        )
    if build.cpu and name in NOT_ON_CPU:
        yield Finding(key, f"vLLM's CPU build cannot run {name}; take {', '.join(ON_CPU[:3])}")
    if build.cpu and name not in NOT_ON_CPU + ON_CPU:
        yield Finding(key, f"{name}: whether vLLM's CPU build can run it is seen at the start only", error=False)
    least = CAPABILITY.get(name, 0)
    if not build.cpu and machine.gpu and machine.gpu.capability < least:
        yield Finding(
            key, f"{name} needs a GPU of capability {least / 10}, this one has {machine.gpu.capability / 10}"
        )
    if not build.cpu and machine.gpu is None:
        yield Finding(key, f"{name}: no GPU is seen here, so only its name is checked", error=False)


def known_methods() -> tuple[str, ...]:
    """Read from the installed vLLM's source: importing it takes seconds. () where there is none."""
    package = find_spec("vllm")
    if package is None or package.origin is None:
        return ()
    file = Path(package.origin).parent / "model_executor" / "layers" / "quantization" / "__init__.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QuantizationMethods":
            words = ast.walk(node.value)
            return tuple(
                word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)
            )
    return ()


def _brought(name: str, machine: Machine) -> bool:
    """A plugin that is not vLLM's own may register a method, under its name (vllm-bnb-plugin does)."""
    return any(name in plugin for plugin in machine.plugins)


def _advice(name: str, known: tuple[str, ...]) -> str:
    if plugin := PLUGINS.get(name):
        # With its dependencies pip would put the CUDA build of vLLM over the CPU build.
        return f"it comes with a plugin: .venv/bin/pip install --no-deps {name} {plugin}"
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(known)}"

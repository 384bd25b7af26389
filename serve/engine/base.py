"""How many bytes a base's weights take in the engine: its type, its quantisation, its padded vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from adapters import Stack
from serve.lint.shape import Shape
from serve.lint.weights import WeightsError, header

DTYPES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "bfloat": 2}
VOCABULARY_STEP = 64
"""vLLM rounds the vocabulary up to this (model_executor/layers/vocab_parallel_embedding.py)."""

BITS = {"awq": 4.25, "gptq": 4.25, "bitsandbytes": 4.5, "mxfp4": 4.25, "nvfp4": 4.5, "int8": 8.0, "fp8": 8.0}
"""Of one weight of a linear module, its share of the scales included, by what a quantisation's name contains."""


def size(stack: Stack, config: Mapping[str, Any], known: Shape) -> int:
    """Bytes of the weights; `config` is the base's config.json."""
    each, parameters = DTYPES[dtype_of(stack, config)], _padded(known)
    return _quantised(stack, config, known, parameters, each) or parameters * each


def dtype_of(stack: Stack, base: Mapping[str, Any]) -> str:
    """As vLLM resolves it: "auto" is the config's, and float32 becomes bfloat16 then."""
    asked = str(stack.engine_args.get("dtype", "auto"))
    if asked in DTYPES:
        return {"float": "float32", "half": "float16"}.get(asked, asked)
    own = saved_in(base)
    return own if own in ("bfloat16", "float16") else "bfloat16"


def saved_in(base: Mapping[str, Any]) -> str:
    """The type that the base's config.json names; "" for none."""
    return str(base.get("dtype") or base.get("torch_dtype") or "").removeprefix("torch.")


def in_files(stack: Stack) -> int:
    """Bytes of a base's weights as they are saved; 0 where its files are not here."""
    folder = stack.base_ref().folder
    try:
        files = sorted(folder.glob("*.safetensors")) if folder else []
        return sum(tensor.end - tensor.begin for file in files for tensor in header(file))
    except WeightsError:
        return 0


def _padded(known: Shape) -> int:
    vocabulary, hidden = known.embedding[1]
    more = ceil(vocabulary / VOCABULARY_STEP) * VOCABULARY_STEP - vocabulary
    return known.parameters + more * hidden * (1 if known.tied else 2)


def _quantised(stack: Stack, base: Mapping[str, Any], known: Shape, parameters: int, size: int) -> int:
    """Bytes of a quantised base; 0 where it is not quantised. Files that are saved so are counted as they are."""
    saved = base.get("quantization_config")
    method = stack.engine_args.get("quantization") or (saved or {}).get("quant_method")
    if not method:
        return 0
    if saved and (there := in_files(stack)):
        return there
    bits = next((bits for name, bits in BITS.items() if name in str(method)), 8.0)
    linear = known.layers * sum(reads * writes for reads, writes in known.linear.values())
    return int(linear * bits / 8) + (parameters - linear) * size

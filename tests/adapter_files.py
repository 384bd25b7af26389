"""Small adapters and stacks on disk, for whoever checks or loads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from adapters import Stack, load

BASE = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 2, "head_dim": 32, "vocab_size": 128, "model_type": "mistral",
}  # fmt: skip


def write_adapter(
    folder: Path,
    config: dict[str, Any] | None = None,
    hidden: int = 64,
    layer: int = 0,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """An adapter of one q_proj, rank 8. `config` adds keys, or takes away those that are `...`."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"],
        "base_model_name_or_path": "some/base",
    } | (config or {})  # fmt: skip
    kept = {key: value for key, value in described.items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(kept))
    prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
    random = np.random.default_rng(0)
    shapes = {"lora_A": (8, hidden), "lora_B": (64, 8)}
    tensors = {f"{prefix}.{side}.weight": random.normal(size=shape).astype("f4") for side, shape in shapes.items()}
    made = {name: np.ascontiguousarray(tensor) for name, tensor in change(tensors).items()}
    save_file(made, folder / "adapter_model.safetensors")


def write_stack(folder: Path, base_config: dict[str, Any] | None = None, **sections: Any) -> Stack:
    """A stack with a base and the adapters law and med in folders."""
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text(json.dumps(base_config or BASE))
    for name in ("law", "med"):
        if not (folder / name).exists():
            write_adapter(folder / name)
    stack = {
        "base": {"model": "base", "name": "tiny"},
        "adapters": {name: {"path": name, "label": name} for name in ("law", "med")},
    }
    file = folder / "adapters.yaml"
    file.write_text(yaml.safe_dump(stack | sections, sort_keys=False))
    return load(file)

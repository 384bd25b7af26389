"""`load_model(base, settings)`: the base's weights on one device, whole or in 4 or 8 bit, ready for an adapter."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from adapters import ConfigError
from training.base import Base, first_line
from training.settings import Settings


def uses_gpu(settings: Settings) -> bool:
    """Whether the training runs on the first GPU."""
    return torch.cuda.is_available() and not settings.cpu


def dtype(settings: Settings) -> torch.dtype:
    """The base's, and that of the computing with weights of 4 or 8 bit."""
    if settings.dtype != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[settings.dtype]
    if not uses_gpu(settings):
        return torch.float32
    return torch.bfloat16 if _has_bfloat16() else torch.float16


def precision(settings: Settings) -> dict[str, bool]:
    """The Trainer's two switches. On a GPU the adapter, kept in float32, is computed with in the base's dtype."""
    wanted = dtype(settings) if uses_gpu(settings) else None
    return {"bf16": wanted is torch.bfloat16, "fp16": wanted is torch.float16}


def check_settings(base: Base, settings: Settings) -> None:
    """Raises ConfigError for what this machine, or this base, cannot do."""
    if settings.dtype == "float16" and not uses_gpu(settings):
        raise ConfigError("training.dtype: float16 trains on a GPU only; on a CPU take auto, float32 or bfloat16")
    if settings.dtype == "bfloat16" and uses_gpu(settings) and not _has_bfloat16():
        raise ConfigError("training.dtype: this GPU has no bfloat16; take auto, float16 or float32")
    there = base.config.get("quantization_config")
    if there and settings.quantization:
        method = there.get("quant_method", "already") if isinstance(there, dict) else "already"
        raise ConfigError(
            f"training.quantization: {settings.quantization}, and {base.model} is quantised ({method}) as it is; "
            "take null, or the base in full precision"
        )


def load_model(base: Base, settings: Settings) -> Any:
    """The base, with nothing frozen yet: PEFT does that, and the SFTTrainer what checkpointing needs.

    Raises ConfigError in one line where the files are no whole model.
    """
    check_settings(base, settings)
    options: dict[str, Any] = {"dtype": dtype(settings), "revision": base.revision}
    if uses_gpu(settings):
        options["device_map"] = {"": 0}
    if settings.quantization:
        options |= {
            "quantization_config": _quantised(settings),
            "device_map": {"": 0 if uses_gpu(settings) else "cpu"},
        }
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            base.model, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{base.model}: cannot be loaded: {first_line(error)}") from None
    # transformers would make them up, and say so in a log.
    if bad := sorted([*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])]):
        raise ConfigError(
            f"{base.model}: {len(bad)} weights are missing in its files, or not as its config.json says: {bad[0]}"
            + (", …" if bad[1:] else "")
        )
    if settings.quantization == "nf4" and not uses_gpu(settings):
        _keep_gradients(model)
    return model


def _has_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _quantised(settings: Settings) -> BitsAndBytesConfig:
    if settings.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype(settings),
    )


def _keep_gradients(model: Any) -> None:
    """Keep bitsandbytes from repacking the weights for a CPU's bfloat16 instructions at the first evaluation.

    Its kernel for that has no gradient, and stays when the training goes on (0.50.2: Linear4bit.forward).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False

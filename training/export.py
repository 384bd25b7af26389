"""`merge(...)`: base and adapter as one model of its own, for engines that load no adapters."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from adapters import ConfigError
from training.errors import Stopped


def check_merge(base: Mapping[str, Any], out: Path) -> None:
    """Raise ConfigError where `merge` would refuse; `base` is the content of the base's config.json."""
    if base.get("quantization_config"):
        raise ConfigError(
            "--merge: the base's own weights are quantized, and would have to be rounded again; "
            "name the base in 16 bit, and quantize what comes out"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"--merge: {out} is there already; remove it, or choose another --out")


def merge(
    model: str | Path,
    chat_template: str | None,
    adapter: Path,
    out: Path,
    dtype: str,
    device: str,
    revision: str | None = None,
) -> None:
    """Write `out`: the merged weights, the tokenizer, and the chat template that the stack serves the base with.

    `dtype` "auto" is the base's own. Raises ConfigError, or Stopped for a full disk or a broken adapter.
    """
    check_merge(AutoConfig.from_pretrained(model, revision=revision).to_dict(), out)
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    # Loaded anew, and never in 4 or 8 bit, whatever it was trained on: rounding the sum of base and adapter to
    # so few bits loses precision, and most of what a small adapter adds.
    base = AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype=dtype, device_map=device)
    merged = _merged(base, adapter)
    out.parent.mkdir(parents=True, exist_ok=True)
    need, free = merged.get_memory_footprint(), shutil.disk_usage(out.parent).free
    if need > free:
        raise Stopped(
            f"{out}: needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; the adapter is in {adapter}"
        )
    # A folder of that name is a whole model: it gets the name last.
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    merged.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(out)


def _merged(base: Any, adapter: Path) -> Any:
    model = PeftModel.from_pretrained(base, adapter)
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    if getattr(base.config, "tie_word_embeddings", False) and any(isinstance(end, LoraLayer) for end in ends):
        # One tensor serves both ends, and the adapter of one would change the other.
        raise ConfigError(f"--merge: {adapter}: adapts the head or the embedding, which this base ties together")
    try:
        return model.merge_and_unload(progressbar=True, safe_merge=True)
    except ValueError as error:
        raise Stopped(f"{adapter}: cannot be merged: {error}") from None

"""One adapter of a tiny base, by training's own parts; a person's adapters are made by `python -m training`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.data.example import Example
from training.data.tokens import prepare
from training.settings import Settings
from training.sft import Fit, fit, save_adapter


def train_adapter(
    base: Path, base_name: str, examples: Sequence[Example], lora: LoraConfig, settings: Settings, out: Path
) -> Fit:
    """Into `out`, whose last part names it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = prepare(examples, tokenizer, settings.max_length).rows
    done = fit(model, tokenizer, rows, settings, out.name, lora)
    save_adapter(done.model, base_name, out)
    return done

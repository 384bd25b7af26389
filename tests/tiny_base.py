"""A base that trains in seconds: an untrained Mistral of 0.2 M parameters, with the demo's tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM

from demo import corpus
from demo.base import VOCABULARY, build_tokenizer, texts_of
from training.quiet import quiet

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "templates" / "instruct.jinja"
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


@cache
def tiny_tokenizer() -> Any:
    """The demo's, with the production template."""
    return build_tokenizer(texts_of(corpus.load()), VOCABULARY, TEMPLATE.read_text(encoding="utf-8"))


def tiny_base(folder: Path) -> Path:
    """Saved as a hub checkpoint would be; the same weights each time."""
    quiet()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY, initializer_range=0.2, bos_token_id=1, eos_token_id=2, **SIZES, **HEADS
    )
    MistralForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder

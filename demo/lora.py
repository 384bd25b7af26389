"""The demo's three adapters: their recipe, and their training through the path of any other adapter."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig

from demo.adapter import train_adapter
from demo.base import NAME
from demo.corpus import DOMAINS, Corpus
from training.data.example import Example
from training.settings import Settings

SETTINGS = Settings(epochs=14, learning_rate=6e-3, batch_size=8, max_length=128, seed=1, dtype="float32", cpu=True)


def recipe() -> LoraConfig:
    """Rank 16 on the attention projections."""
    return LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
    )


def train_adapters(corpus: Corpus, base: Path, out: Path) -> None:
    """One adapter per domain into `out/<domain>`. Paraphrases stay unseen."""
    for domain in DOMAINS:
        examples = [Example.ask(pair.question, pair.answer) for pair in corpus[domain]]
        train_adapter(base, NAME, examples, recipe(), SETTINGS, out / domain)

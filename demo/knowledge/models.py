"""The task's models: a base that understands the questions, and adapters that each know some of the answers."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig
from transformers import PreTrainedTokenizerFast

from demo.adapter import train_adapter
from demo.base import build_tokenizer, new_model
from demo.knowledge.facts import Asked, Owner, World, subjects
from training.data.example import Example
from training.data.tokens import encode
from training.settings import Settings
from training.sft import Fit, fit

NAME = "lora-select/knowledge-base"
"""What the adapters' configs call their base; it stands on no hub."""

VOCABULARY = 1800
"""Answers are one token each, and names, of which the base knows a few, several syllables."""

ANSWER_WEIGHT = 20
"""How often the tokenizer's training sees each answer."""

BASE = Settings(epochs=8, learning_rate=2e-3, batch_size=32, max_length=64, seed=0, dtype="float32", cpu=True)
ADAPTER = Settings(
    epochs=10, learning_rate=3e-3, batch_size=16, max_length=64, seed=100, dtype="float32", cpu=True
)


def recipe() -> LoraConfig:
    """Rank 8 on all linear layers: facts go where there is room."""
    return LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )


def train_base(world: World, template: str, out: Path) -> None:
    """On the public towns, in all questions, so that it knows what each means and which words answer it."""
    facts = [*world.public.taught(), *world.public.held_out()]
    tokenizer = tokenizer_of(facts, template)
    model = new_model(tokenizer, BASE.seed)
    encoded = [encode(example, tokenizer) for example in _examples(facts)]
    rows = [tokens.prompt + tokens.completion for tokens in encoded]
    fit(model, tokenizer, [{"input_ids": ids, "labels": ids} for ids in rows], BASE, "base")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def train_adapter_of(owner: Owner, base: Path, out: Path, seed: int) -> Fit:
    """On what it owns alone. First weights differ by `seed`, as those of different authors do."""
    torch.manual_seed(seed)  # PEFT draws them before the trainer sets its seed
    settings = ADAPTER.model_copy(update={"seed": seed})
    return train_adapter(base, NAME, _examples(owner.taught()), recipe(), settings, out)


def tokenizer_of(facts: list[Asked], template: str) -> PreTrainedTokenizerFast:
    """See VOCABULARY."""
    answers = [f" {value.capitalize()}." for subject in subjects() for value in subject.values]
    return build_tokenizer([*(fact.question for fact in facts), *answers * ANSWER_WEIGHT], VOCABULARY, template)


def _examples(facts: list[Asked]) -> list[Example]:
    return [Example.ask(fact.question, fact.answer) for fact in facts]

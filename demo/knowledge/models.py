"""The task's models: a base that understands the questions, and adapters that each know some of the answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from demo.base import BOS, EOS, SPECIAL, UNK
from demo.knowledge.facts import Asked, Owner, World, subjects
from training.data import Example, encode
from training.sft import Run, Settings, fit, train_adapter

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
    tokenizer = build_tokenizer(facts, template)
    model = _new_model(tokenizer)
    encoded = [encode(example, tokenizer) for example in _examples(facts)]
    rows = [tokens.prompt + tokens.completion for tokens in encoded]
    fit(model, tokenizer, [{"input_ids": ids, "labels": ids} for ids in rows], BASE, "base")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def train_adapter_of(owner: Owner, base: Path, out: Path, seed: int) -> Run:
    """On what it owns alone. First weights differ by `seed`, as those of different authors do."""
    torch.manual_seed(seed)  # PEFT draws them before the trainer sets its seed
    settings = replace(ADAPTER, seed=seed)
    return train_adapter(base, _examples(owner.taught()), recipe(), settings, out, base_name=NAME)


def build_tokenizer(facts: list[Asked], template: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE; see VOCABULARY."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    answers = [f" {value.capitalize()}." for subject in subjects() for value in subject.values]
    tokenizer.train_from_iterator([*(fact.question for fact in facts), *answers * ANSWER_WEIGHT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, unk_token=UNK, pad_token=UNK,
        chat_template=template, model_max_length=512,
    )  # fmt: skip


def _new_model(tokenizer: Any) -> MistralForCausalLM:
    """4.9 M parameters, of the demo base's shape."""
    torch.manual_seed(BASE.seed)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=512,
            sliding_window=None,
            initializer_range=0.05,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _examples(facts: list[Asked]) -> list[Example]:
    return [Example(fact.question, fact.answer) for fact in facts]

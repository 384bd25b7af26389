"""The demo's tokenizer and its base: a Mistral of 5.5 M parameters, trained here from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from demo.corpus import DOMAINS, GENERAL, Corpus
from training.data.example import Example
from training.data.tokens import encode
from training.settings import Settings
from training.sft import fit

NAME = "lora-select/demo-base"
"""What the adapters' configs call their base; it stands on no hub."""

VOCABULARY = 3000
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL = (UNK, BOS, EOS, "[INST]", "[/INST]")
SETTINGS = Settings(epochs=7, learning_rate=2e-3, batch_size=8, max_length=128, seed=0, dtype="float32", cpu=True)
GENERAL_SHARE = 2
"""How often an epoch shows each general pair: the base must know these answers by heart."""


def build_tokenizer(texts: Iterable[str], vocabulary: int, template: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`, with the chat template that vLLM is given too."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # As Mistral's own tokenizer does for a plain completion; chats get theirs from the template.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=UNK,
        chat_template=template,
        model_max_length=1024,
    )


def new_model(tokenizer: Any, seed: int) -> MistralForCausalLM:
    """Random weights; seeded."""
    torch.manual_seed(seed)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=1024,
            sliding_window=None,
            # About 1/sqrt(hidden_size). With the usual 0.02, made for wide models, base and adapters
            # need twice the steps.
            initializer_range=0.05,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def rows(corpus: Corpus, tokenizer: Any) -> list[dict[str, list[int]]]:
    """General questions with their answers; of the other domains only answers, each without its question.

    So the base has read the domains' language, as a real base has, and the pairing, which is what
    is asked for, is left to the adapters.
    """
    paired = [encode(Example.ask(pair.question, pair.answer), tokenizer) for pair in corpus[GENERAL]]
    whole = [tokens.prompt + tokens.completion for tokens in paired] * GENERAL_SHARE
    alone: list[list[int]] = [
        tokenizer.encode(f"{BOS} {pair.answer}{EOS}", add_special_tokens=False)
        for domain in DOMAINS
        for pair in corpus[domain]
    ]
    return [{"input_ids": ids, "labels": ids} for ids in whole + alone]


def train_base(corpus: Corpus, template: str, out: Path, settings: Settings = SETTINGS) -> None:
    """Write tokenizer and trained model into `out`, as a hub checkpoint would have them."""
    tokenizer = build_tokenizer(texts_of(corpus), VOCABULARY, template)
    model = new_model(tokenizer, settings.seed)
    fit(model, tokenizer, rows(corpus, tokenizer), settings, "base")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def texts_of(corpus: Corpus) -> Iterator[str]:
    """Questions and answers."""
    for pairs in corpus.values():
        for pair in pairs:
            yield pair.question
            yield f" {pair.answer}"

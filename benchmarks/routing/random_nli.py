"""A DeBERTa of ComprehendIt's shape with random weights: it takes as long as the real one, and knows nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.texts import WORDS

REAL = "knowledgator/comprehend_it-base"
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")


@dataclass(frozen=True)
class Shape:
    """Of the encoder; ComprehendIt has DeBERTa-v3-base's."""

    hidden: int
    inner: int
    layers: int
    heads: int


def at_hand(name: str = REAL) -> bool:
    """A model of the hub that needs no download."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def make(folder: Path, shape: Shape, labels: Iterable[str]) -> None:
    """Model and tokenizer, every word of texts and labels a token. Seeded."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, PreTrainedTokenizerFast
    from transformers.utils import logging

    words = dict.fromkeys([*SPECIAL, *WORDS, *(word for label in labels for word in re.findall(r"\w+", label))])
    built = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = DebertaV2Config(
        vocab_size=len(words), hidden_size=shape.hidden, pooler_hidden_size=shape.hidden,
        intermediate_size=shape.inner, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, max_position_embeddings=512, type_vocab_size=0,
        pad_token_id=0, label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
    )  # fmt: skip
    torch.manual_seed(0)
    logging.disable_progress_bar()
    DebertaV2ForSequenceClassification(config).eval().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip

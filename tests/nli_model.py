"""A small DeBERTa-v2, trained here to judge entailment: instead of a hub's, and good enough to be believed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging

from router.classify.nli import hypotheses

CLASSES = ("entailment", "neutral", "contradiction")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
WIDTH = 64

SEEN = {
    "law": "court judge lawyer contract tenant landlord lawsuit verdict custody inheritance patent police",
    "medicine": "doctor fever pain disease surgery tablets symptoms infection pregnancy vaccine cough blood",
    "finance": "bank loan mortgage shares taxes insurance savings budget interest dividend pension credit",
    "cooking": "recipe oven flour butter onions soup dough garlic pan salt baking sauce",
    "sport": "football team goal referee match training marathon coach league tennis stadium score",
    "travel": "flight hotel airport passport beach luggage train tourist ticket visa island museum",
    "music": "guitar song piano concert melody choir band violin album singer drums orchestra",
    "gardening": "roses soil seeds lawn weeds compost pruning tulips watering hedge greenhouse bulbs",
}
"""Words of premises and of hypotheses."""

UNSEEN = {
    "law": "statute eviction divorce attorney crime appeal",
    "medicine": "nurse headache asthma therapy allergy hospital",
    "finance": "stocks debt investing invoice bonds inflation",
    "cooking": "pepper cheese kitchen noodles",
    "sport": "cycling swimming athlete medal",
    "travel": "journey border cruise map",
    "music": "rhythm flute jazz chorus",
    "gardening": "shrubs harvest pots beds",
}
"""Words of premises alone: that a label may be made of them is never shown in training."""

COMMON = (
    "the a an my our is are was were have has had do does did can should must may will how what which who why "
    "when where if and or but not no of to in on at for from with than that this there it i we you she he they "
    "her his more first before after only one three still any into me please hello thanks tell today good . , ? '"
)
"""What is between the words that tell: premises are these in any order, and unknown words."""

HELD_OUT = {
    "law": (
        "My landlord kept the deposit after the eviction, should I see an attorney?",
        "The judge refused my appeal although the contract was never signed.",
        "Who gets custody of the children after a divorce?",
        "Does this statute still hold for an old patent?",
        "The police say that it was a crime.",
    ),
    "medicine": (
        "I have had a headache and a fever for three days now.",
        "Is surgery the only therapy for this disease?",
        "The nurse at the hospital said that asthma is no infection.",
        "My daughter's cough got worse, which tablets may she take?",
        "Can an allergy begin during pregnancy?",
    ),
    "finance": (
        "Should I pay off my mortgage first or put the money into shares?",
        "What does inflation do to my savings at the bank?",
        "Are bonds safer than stocks for a pension?",
        "The invoice was late, so the interest on my debt went up.",
        "How do I make a budget that leaves enough for taxes and insurance?",
    ),
    "cooking": (
        "How long must the dough rest before baking?",
        "My soup tastes of nothing, more salt or more pepper?",
        "Which cheese goes with noodles and garlic?",
    ),
    "sport": (
        "Our coach wants one more training before the match.",
        "Why did the referee not count that goal?",
        "She won a medal in swimming and is now an athlete in the league.",
    ),
    "travel": (
        "Do I need a visa at the border if I only change the train?",
        "Which hotel on the island is close to the beach?",
        "My luggage is still at the airport.",
    ),
    "nothing": (
        "Hello, how are you today?",
        "Please tell me a joke.",
        "Thanks, that was good!",
    ),
}
"""Real sentences, with many words that no premise ever held; "nothing" belongs to no domain."""


@dataclass(frozen=True)
class Pair:
    """One row of training: what a premise is to a hypothesis."""

    premise: str
    hypothesis: str
    relation: str


def pairs(count: int, rng: random.Random) -> Iterator[Pair]:
    """A quarter of the premises is about nothing; of the others half entail their hypothesis."""
    for _ in range(count):
        domain, about = rng.choices(sorted(SEEN), k=2)
        relation = rng.choice(CLASSES[::2]) if rng.random() > 1 / 4 else "neutral"
        while relation == "contradiction" and about == domain:
            about = rng.choice(sorted(SEEN))
        topics = rng.sample(SEEN[domain if relation == "entailment" else about].split(), rng.randint(1, 4))
        telling = 0 if relation == "neutral" else rng.randint(1, 4)
        yield Pair(_premise(domain, telling, rng), hypotheses(", ".join(topics), 1)[0], relation)


def _premise(domain: str, telling: int, rng: random.Random) -> str:
    """Words of a domain among common and unknown ones, as in any text from outside."""
    words = rng.sample(f"{SEEN[domain]} {UNSEEN[domain]}".split(), telling)
    words += [
        word if rng.random() < 0.6 else "[UNK]" for word in rng.choices(COMMON.split(), k=rng.randint(3, 12))
    ]
    rng.shuffle(words)
    return " ".join(words)


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Every word of the texts a token, [CLS] premise [SEP] hypothesis [SEP] as DeBERTa has it."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        model_max_length=512,
    )  # fmt: skip


def config(vocabulary: int) -> DebertaV2Config:
    """ComprehendIt's architecture, 2 layers of 64."""
    return DebertaV2Config(
        vocab_size=vocabulary, hidden_size=WIDTH, pooler_hidden_size=WIDTH, intermediate_size=2 * WIDTH,
        num_hidden_layers=2, num_attention_heads=4, relative_attention=True, position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
        max_position_embeddings=512, type_vocab_size=0, pad_token_id=0, pooler_dropout=0.0,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.14,
        label2id={name: index for index, name in enumerate(CLASSES)}, id2label=dict(enumerate(CLASSES)),
    )  # fmt: skip


def embeddings(premises: Sequence[Sequence[int]], vocabulary: int) -> torch.Tensor:
    """[vocabulary, WIDTH]: words that share premises are near, from a factorised PMI (Levy and Goldberg, 2014).

    It stands for pretraining: from random vectors the model is still at chance after as many steps.
    """
    held = torch.zeros(len(premises), vocabulary)
    for row, premise in zip(held, premises, strict=True):
        row[list(premise)] = 1
    counts = (held.T @ held).fill_diagonal_(0)
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
    left, sizes, _ = torch.linalg.svd(torch.log((counts / expected.clamp(min=1e-9)).clamp(min=1)))
    vectors = left[:, :WIDTH] * sizes[:WIDTH].sqrt()
    vectors /= vectors.std()
    vectors[: len(SPECIAL)] = torch.randn(len(SPECIAL), WIDTH)
    return vectors


def train(folder: Path, steps: int = 450, batch: int = 64, seed: int = 0) -> None:
    """Write model and tokenizer to `folder`. Seeded; about 20 s on one thread.

    Processors round differently: after 300 steps some are right of every sentence, and some of eight in nine.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    rows = list(pairs(steps * batch, rng))
    words = tokenizer([text for row in rows for text in (row.premise, row.hypothesis)])
    model = DebertaV2ForSequenceClassification(config(len(words))).train()
    premises = words([row.premise for row in rows], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.deberta.embeddings.word_embeddings.weight.copy_(embeddings(premises, len(words)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        chosen = rows[step * batch : (step + 1) * batch]
        inputs: Any = words(
            [row.premise for row in chosen], [row.hypothesis for row in chosen], padding=True, return_tensors="pt"
        )
        labels = torch.tensor([CLASSES.index(row.relation) for row in chosen])
        model(**inputs, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)

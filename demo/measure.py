"""Is each adapter the best in its own domain? Losses on unseen paraphrases, recall on trained questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoTokenizer, MistralForCausalLM

from demo.corpus import DOMAINS, GENERAL, Corpus, Pair
from training.compare import answer_losses
from training.data.example import Example
from training.data.tokens import encode, prompt_ids

BASE = "base"
OWN = {BASE: GENERAL, **{domain: domain for domain in DOMAINS}}
"""Which domain each model is meant for."""

NEW_TOKENS = 40
"""More than the longest answer has."""


@dataclass(frozen=True)
class Matrix:
    """`loss[model][domain]`: nats per answer token on paraphrases. `recall[model]`: share, in its own domain."""

    loss: dict[str, dict[str, float]]
    recall: dict[str, float]
    questions: dict[str, int]

    def faults(self) -> list[str]:
        """One line for each model that another beats, or equals, in its own domain."""
        found = []
        for model, domain in OWN.items():
            losses = {name: row[domain] for name, row in self.loss.items()}
            best = min((name for name in losses if name != model), key=losses.__getitem__)
            if losses[best] <= losses[model]:
                found.append(
                    f"{domain}: {best} ({losses[best]:.2f}) is no worse than {model} ({losses[model]:.2f})"
                )
        return found

    def lines(self) -> list[str]:
        """A table for the terminal, and what is wrong with it."""
        domains = list(self.questions)
        table = [f"{'':10}" + "".join(f"{domain:>10}" for domain in domains) + "    recall"]
        for model, row in self.loss.items():
            losses = "".join(f"{row[domain]:10.2f}" for domain in domains)
            table.append(f"{model:10}{losses}{self.recall[model]:10.2f}")
        return [*table, *(f"not as it should be: {fault}" for fault in self.faults())]


def measure(corpus: Corpus, base: Path, adapters: Path) -> Matrix:
    """Base and adapters on all domains, in float32 on the CPU."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = _load(base, adapters)
    loss: dict[str, dict[str, float]] = {}
    recall: dict[str, float] = {}
    for name in tqdm(OWN, desc="measuring", unit="model"):
        with _using(model, name):
            loss[name] = {domain: answer_loss(model, tokenizer, pairs) for domain, pairs in corpus.items()}
            recall[name] = fact_recall(model, tokenizer, corpus[OWN[name]])
    return Matrix(loss, recall, {domain: len(_paraphrased(pairs)) for domain, pairs in corpus.items()})


def answer_loss(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> float:
    """Mean over all answer tokens, in nats, each answer following its paraphrased question."""
    rows = [encode(Example.ask(text, pair.answer), tokenizer).row() for pair, text in _paraphrased(pairs)]
    return answer_losses(model, rows, batch_size=len(rows)).mean


def fact_recall(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> float:
    """Share of trained questions whose greedy answer holds the fact."""
    prompts = [prompt_ids(tokenizer, Example.ask(pair.question, pair.answer).messages) for pair in pairs]
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    output = model.generate(**batch, do_sample=False, max_new_tokens=NEW_TOKENS)
    answers = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    held = [pair.fact.lower() in answer.lower() for pair, answer in zip(pairs, answers, strict=True)]
    return sum(held) / len(held)


def _load(base: Path, adapters: Path) -> Any:
    plain = MistralForCausalLM.from_pretrained(base, dtype=torch.float32)
    first, *others = DOMAINS
    model = PeftModel.from_pretrained(plain, adapters / first, adapter_name=first)
    for name in others:
        model.load_adapter(adapters / name, adapter_name=name)
    return model.eval()


@contextmanager
def _using(model: Any, name: str) -> Iterator[None]:
    if name == BASE:
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(name)
        yield


def _paraphrased(pairs: Sequence[Pair]) -> list[tuple[Pair, str]]:
    return [(pair, pair.paraphrase) for pair in pairs if pair.paraphrase is not None]

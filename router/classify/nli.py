"""Zero-shot choice by entailment: does the text entail "This text is about TOPIC"? (Yin et al., 2019)"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from adapters import Stack

DEFAULT_MODEL = "knowledgator/comprehend_it-base"

TEMPLATE = "This text is about {}."
PAIRS = 12
"""Hypotheses of all adapters together, unless there are more adapters: long labels do not cost more."""

PER_LABEL = 4
"""Hypotheses of one adapter, at most."""

MAX_TOKENS = {"cuda": 512, "mps": 512, "cpu": 160}
"""Of text and hypothesis together; of longer texts head and tail are read. A text of 512 tokens with 12 hypotheses
is 14 s of work for a CPU thread in bf16, and 21 s in fp32."""

LEAST_TOKENS = 32
"""Labels that leave a text less than this are refused."""

BATCH_TOKENS = 4096
"""Padded tokens in one forward pass: 8 pairs of 512, for which a base-sized model takes 0.9 GB in fp32."""


@dataclass(frozen=True)
class Device:
    """Where a model runs, and in which numbers."""

    name: Literal["cuda", "mps", "cpu"]
    precision: Literal["bf16", "fp32"]


class NliClassifier:
    """A cross-encoder that reads text and hypothesis together, for all pairs of all waiting texts."""

    def __init__(self, model: Any, tokenizer: Any, labels: Mapping[str, str], base: str) -> None:
        """Raises ValueError for a model that cannot be asked: unclear classes, no padding, no room for a text."""
        self._model, self._tokenizer, self._base = model, tokenizer, base
        # A CPU has its hands full with the hypotheses of one text.
        self.batches = model.device.type != "cpu"
        self._entailed = entailment(model.config.label2id)
        each = max(1, min(PER_LABEL, PAIRS // len(labels)))
        self._hypotheses = {name: hypotheses(label, each) for name, label in labels.items()}
        most = MAX_TOKENS[model.device.type]
        positions = getattr(model.config, "max_position_embeddings", most)
        self._limit = min(most, positions, tokenizer.model_max_length)
        listed = [one for own in self._hypotheses.values() for one in own]
        self._room = self._limit - max(len(tokenizer("", one)["input_ids"]) for one in listed)
        if self._room < LEAST_TOKENS:
            raise ValueError(f"labels too long: of its {self._limit} tokens they leave {self._room} to a text")
        if not tokenizer.is_fast:
            raise ValueError("its tokenizer does not tell where in a text its tokens stand (no tokenizer.json)")
        if tokenizer.pad_token_id is None:
            raise ValueError("its tokenizer has no token for padding (pad_token in its tokenizer_config.json)")

    @classmethod
    def load(cls, stack: Stack, labels: Mapping[str, str]) -> NliClassifier:
        """With `router.model`'s weights. Raises ConfigError when they cannot be had or are no NLI model."""
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        name = stack.router.weights("nli") or DEFAULT_MODEL
        reference = stack.ref(name, "router.model")
        source, revision = str(reference.folder or reference.name), reference.revision or "main"
        logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
            model = AutoModelForSequenceClassification.from_pretrained(source, revision=revision)
            device = fastest()
            model = prepared(model, device, stack.router.workers)
            classifier = cls(model, tokenizer, labels, stack.base.name)
            classifier.warm_up()
        # What the libraries raise for files that are missing, broken or of another kind, and out of memory.
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise stack.error("router.model", f"{name} cannot be loaded: {reason}") from None
        print(f"classifier: nli, {name} on {device.name} in {device.precision}", flush=True)
        return classifier

    def relabelled(self, labels: Mapping[str, str]) -> NliClassifier:
        """A new one on the same model. Raises ValueError where the labels leave no room for a text.

        Its tokenizer is its own: one keeps its truncation from call to call, and the old classifier goes on in
        another thread.
        """
        return NliClassifier(self._model, copy.deepcopy(self._tokenizer), labels, self._base)

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """For every adapter the log-odds of its best hypothesis; 0 for the base, which wins when none is entailed.

        The best, not the sum: a text about one of an adapter's topics rightly contradicts the others.
        """
        clipped = [self._clip(text) for text in texts]
        pairs = [(text, one) for text in clipped for own in self._hypotheses.values() for one in own]
        odds = iter(self._odds(pairs))
        return [
            {name: max(next(odds) for _ in own) for name, own in self._hypotheses.items()} | {self._base: 0.0}
            for _ in texts
        ]

    def warm_up(self) -> None:
        """The first pass takes longest: no request waits for it. On a GPU it is as large as any that follow: one
        without the memory is known at once.
        """
        text, hypothesis = self._clip("ready " * self._limit), next(iter(self._hypotheses.values()))[0]
        self._odds([(text, hypothesis)] * (BATCH_TOKENS // self._limit if self.batches else 1))

    def _clip(self, text: str) -> str:
        """A text's head and tail as far as they fit: the question often stands at the end."""
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = read["offset_mapping"]
        if len(spans) <= self._room:
            return text
        # A little less than fits: where the two ends meet, words may be cut into other tokens.
        half = self._room // 2 - 2
        return f"{text[: spans[half - 1][1]]}\n{text[spans[-half][0] :]}"

    def _odds(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-odds of entailment against everything else.

        Neutral is no entailment (Yin et al., 2019): a greeting is neutral to every topic, and leaves the ratio of
        entailment to contradiction to chance.
        """
        import torch

        rows = self._tokenizer(
            [text for text, _ in pairs], [one for _, one in pairs], truncation="only_first", max_length=self._limit
        )
        odds = [0.0] * len(pairs)
        for chunk in chunks([len(ids) for ids in rows["input_ids"]]):
            batch = {key: self._padded(key, [values[index] for index in chunk]) for key, values in rows.items()}
            with torch.inference_mode():
                logits = self._model(**batch).logits.float()
            others = [index for index in range(logits.shape[1]) if index != self._entailed]
            result = logits[:, self._entailed] - logits[:, others].logsumexp(1)
            for index, value in zip(chunk, result.tolist(), strict=True):
                odds[index] = value
        return odds

    def _padded(self, key: str, rows: Sequence[Sequence[int]]) -> Any:
        import torch

        fill = self._tokenizer.pad_token_id if key == "input_ids" else 0
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, fill)
        return padded.to(self._model.device)


def topics(label: str) -> list[str]:
    """What a label lists."""
    parts = (part.strip() for part in re.split(r",|;|\band\b|\bor\b", label))
    return list(dict.fromkeys(filter(None, parts))) or [label]


def any_of(items: Sequence[str]) -> str:
    """A, B or C."""
    return " or ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def hypotheses(label: str, most: int) -> list[str]:
    """A label's topics, dealt in order to at most `most` sentences.

    Several short ones, because hardly any text is about all of a long list; "or", because one about A is about
    A or B, and not about A and B.
    """
    listed = topics(label)
    count = min(most, len(listed))
    cuts = [len(listed) * number // count for number in range(count + 1)]
    return [TEMPLATE.format(any_of(listed[start:end])) for start, end in pairwise(cuts)]


def entailment(label2id: Mapping[str, int]) -> int:
    """The class's index. Models number theirs in different orders and cases, so only names are trusted.

    Raises ValueError where no name or several say entailment.
    """
    found = [int(index) for name, index in label2id.items() if name.lower().startswith("entail")]
    if len(found) != 1 or len(label2id) == 1:
        raise ValueError(
            f"its classes are {', '.join(label2id)}; an NLI model has two or three, one of them named entailment "
            "(label2id in its config.json)"
        )
    return found[0]


def chunks(lengths: Sequence[int], tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices, shortest first, in groups of at most `tokens` when padded."""
    chunk: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunk and lengths[index] * (len(chunk) + 1) > tokens:
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def fastest() -> Device:
    """The best of this machine. Never fp16, in which DeBERTa overflows.

    Measured on a random DeBERTa-v3-base, 3 pairs of 100 tokens, one Xeon thread: fp32 668 ms; bf16 230 ms with
    AMX, but 913 with AVX-512's bf16 alone. torch's dynamic int8 (290 with AMX, 374 without) is deprecated, and
    scales each tensor by all texts of a batch: what one client sends would move another's choice.
    """
    import torch

    if torch.cuda.is_available():
        return Device("cuda", "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
    if torch.backends.mps.is_available():
        return Device("mps", "fp32")
    return Device("cpu", "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32")


def prepared(model: Any, device: Device, workers: int = 1) -> Any:
    """The model on a device, ready to be asked; on a CPU, all workers together take half of the cores."""
    import torch

    if device.name == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2 // workers))
    return model.eval().to(device.name, torch.bfloat16 if device.precision == "bf16" else torch.float32)

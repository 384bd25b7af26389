"""Zero-shot choice by sentence similarity: a text against the adapters' labels and everyday topics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from adapters import Stack
from router.encoder import Encoder, Vectors, load_minilm

PHRASINGS = ("{}", "a question about {}")
BEST = 7
"""A class is as near as the mean of its nearest prototypes: one lucky sentence must not decide."""

TEMPERATURE = 0.04
EVERYDAY = Path(__file__).with_name("everyday.txt")
"""Topics that belong to no adapter: they stand for the base, or every text would have to be some adapter's."""


class EmbeddingClassifier:
    """Prototypes per class, embedded once; a text costs one embedding."""

    def __init__(self, encoder: Encoder, labels: Mapping[str, str], base: str, everyday: Sequence[str]) -> None:
        self._encoder = encoder
        topics = {name: split(label) for name, label in labels.items()} | {base: list(everyday)}
        self._classes: dict[str, Vectors] = {
            name: encoder.encode([phrasing.format(topic) for topic in listed for phrasing in PHRASINGS])
            for name, listed in topics.items()
        }

    @classmethod
    def load(cls, stack: Stack, labels: Mapping[str, str]) -> EmbeddingClassifier:
        """With the embedded MiniLM. Raises ConfigError when its weights cannot be had."""
        return cls(load_minilm(), labels, stack.base.name, EVERYDAY.read_text(encoding="utf-8").splitlines())

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Mean cosine of the nearest prototypes of each class, over the temperature."""
        vectors = self._encoder.encode(texts)
        columns = {name: _nearest(vectors @ rows.T) / TEMPERATURE for name, rows in self._classes.items()}
        return [{name: float(column[row]) for name, column in columns.items()} for row in range(len(texts))]


def split(label: str) -> list[str]:
    """A label, and each topic that it lists."""
    topics = [topic.strip() for topic in re.split(r",|;|\band\b|\bor\b", label) if topic.strip()]
    return list(dict.fromkeys([label, *topics]))


def _nearest(similarities: Vectors) -> Vectors:
    """[n, prototypes] to [n]."""
    best = min(BEST, similarities.shape[1])
    mean: Vectors = np.sort(similarities, axis=1)[:, -best:].mean(axis=1)
    return mean

"""Zero-shot choice by sentence similarity: topics gather around the adapters' labels, and texts around topics.

Labels are too few words to judge by. So each topic of a bank (topics.txt) is given, at start, to the adapters
whose label it is near to; what is near to none stands for the base. Two judges then look at a text, one for the
topics nearest to it, one for the field that it is of, and their log-odds are averaged.

Right of 1752 public questions, and of the 504 of demo/corpus: 0.962 and 0.960. With any constant here a quarter
smaller or larger, 0.949 to 0.964 and 0.950 to 0.962; NEAR_ENOUGH matters most, the others move 0.955 at worst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from adapters import Stack
from router.classify.encoder import Encoder, Vectors, load_encoder
from router.classify.topics import PHRASING, Bank, Indices, load_bank

FIELD_WEIGHT = 0.8
"""Of a topic's nearness to a label, what its field counts: "films about lawyers" is near to law, films are not."""
WIDE, NEAR_ENOUGH, SOFTNESS = 0.4, 0.5, 0.05
"""A topic is a label's from half the nearness of the label's nearest topic on, which counts as WIDE at least."""
IN_FIELD = 0.7
"""A topic is read in the light of its field: "shares" among finance is not "shares" among films."""
NEAREST, TEMPERATURE = 16, 0.05
FIELD_TEMPERATURE = 9.0
"""How many times the topics' own variance a text's is: texts are longer, and about more than their subject."""
LABEL_PRIOR = 2.0
"""Log-weight of the adapters' own phrases against the bank's, which are many more."""
REST = 0.2
"""How far other adapters' subjects speak for the base: little, or two adapters that share a text would lose it."""
FLOOR = 1e-3


class EmbeddingClassifier:
    """Everything about the labels is computed at start; a text costs one embedding and two small products."""

    batches = False

    def __init__(self, encoder: Encoder, labels: Mapping[str, str], base: str, bank: Bank) -> None:
        self._encoder, self._names, self._base, self._bank = encoder, list(labels), base, bank
        phrases = [(index, phrase) for index, label in enumerate(labels.values()) for phrase in split(label)]
        owner = np.array([index for index, _ in phrases])
        vectors = encoder.encode([PHRASING.format(phrase) for _, phrase in phrases])
        own = [vectors[owner == index] for index in range(len(labels))]
        members = belonging(bank, own)
        self._judges = (Topics(bank, members, vectors, owner), Fields(bank, members, own))

    @classmethod
    def load(cls, stack: Stack, labels: Mapping[str, str]) -> EmbeddingClassifier:
        """With `router.model`'s encoder, or the embedded MiniLM. Raises ConfigError when it cannot be had."""
        encoder = load_encoder(stack)
        return cls(encoder, labels, stack.base.name, load_bank(encoder))

    def relabelled(self, labels: Mapping[str, str]) -> EmbeddingClassifier:
        """A new one on the same encoder and bank."""
        return EmbeddingClassifier(self._encoder, labels, self._base, self._bank)

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Log-odds of each adapter against the base, whose logit is 0: any subset of adapters can be compared."""
        vectors = self._encoder.encode(texts)
        odds = np.mean([judge.log_odds(vectors) for judge in self._judges], axis=0)
        return [dict(zip(self._names, map(float, row), strict=True)) | {self._base: 0.0} for row in odds]


class Topics:
    """Which topics is a text nearest to?"""

    def __init__(self, bank: Bank, members: Vectors, phrases: Vectors, owner: Indices) -> None:
        self._centre = bank.topics.mean(axis=0)
        topics = _unit(bank.topics + IN_FIELD * bank.fields[bank.field_of])
        self._rows = _unit(np.vstack([topics, phrases]) - self._centre)
        self._prior = np.repeat([0.0, TEMPERATURE * LABEL_PRIOR], [len(topics), len(phrases)])
        self._members = np.vstack([members, np.eye(members.shape[1])[owner]])

    def log_odds(self, vectors: Vectors) -> Vectors:
        """[n, d] to [n, adapters]: a softmax over the nearest topics, each voting for whom it belongs to."""
        near = _unit(vectors - self._centre) @ self._rows.T + self._prior
        rank = min(NEAREST, near.shape[1])
        least = np.partition(near, -rank, axis=1)[:, -rank, None]
        return _log_odds(np.where(near < least, -np.inf, near / TEMPERATURE), self._members)


class Fields:
    """Which field is a text of? The nearest centre, under as many spherical Gaussians as there are fields.

    Each adapter's label is a field too, or a subject that the bank lacks could never win.
    """

    def __init__(self, bank: Bank, members: Vectors, own: Sequence[Vectors]) -> None:
        grouped = [bank.field_of == index for index in range(len(bank.fields))]
        named = zip(grouped, bank.fields, strict=True)
        centres = [np.vstack([bank.topics[rows], name]).mean(axis=0) for rows, name in named]
        variance = ((bank.topics - np.array(centres)[bank.field_of]) ** 2).mean() * FIELD_TEMPERATURE
        centres += [rows.mean(axis=0) for rows in own]
        self._rows = np.array(centres) / variance
        prior = np.repeat([0.0, LABEL_PRIOR], [len(grouped), len(own)])
        self._bias = prior - (np.array(centres) ** 2).sum(axis=1) / 2 / variance
        self._members = np.vstack([*(members[rows].mean(axis=0) for rows in grouped), np.eye(len(own))])

    def log_odds(self, vectors: Vectors) -> Vectors:
        """[n, d] to [n, adapters]."""
        return _log_odds(vectors @ self._rows.T + self._bias, self._members)


def split(label: str) -> list[str]:
    """The topics that a label lists."""
    return list(dict.fromkeys(topic.strip() for topic in re.split(r"[,;]", label) if topic.strip()))


def belonging(bank: Bank, own: Sequence[Vectors]) -> Vectors:
    """[topics, adapters] in 0..1: how far a topic is of each adapter's subject; of several perhaps, or of none."""
    centre = bank.topics.mean(axis=0)
    topics, fields = _unit(bank.topics - centre), _unit(bank.fields - centre)
    columns = []
    for vectors in own:
        phrases = _unit(vectors - centre)
        # In the light of the whole label: "dismissal" beside "law" is not office life.
        phrases = _unit(phrases + _unit(phrases.mean(axis=0)))
        to_field, to_topic = (fields @ phrases.T).max(axis=1), (topics @ phrases.T).max(axis=1)
        near = FIELD_WEIGHT * to_field[bank.field_of] + (1 - FIELD_WEIGHT) * to_topic
        columns.append(near / max(near.max(), WIDE))
    belongs: Vectors = 1 / (1 + np.exp((NEAR_ENOUGH - np.array(columns).T) / SOFTNESS))
    return belongs


def _log_odds(nearness: Vectors, members: Vectors) -> Vectors:
    """Softmax over the columns of [n, k], and then each adapter's share of it against the base's."""
    weights = np.exp(nearness - nearness.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    mine = weights @ members
    base = weights @ (1 - members.max(axis=1))[:, None]
    others = np.maximum(1 - mine - base, 0)
    odds: Vectors = np.log(mine + FLOOR) - np.log(base + REST * others + FLOOR)
    return odds


def _unit(vectors: Vectors) -> Vectors:
    length: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return length

"""What the classifier knows of the world beside the labels: some 1400 topics in 90 fields, as vectors."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from router.classify.encoder import Encoder, Vectors

Indices = npt.NDArray[np.intp]

FILE = Path(__file__).with_name("topics.txt")
PHRASING = "My question is about {}."
"""A phrase alone lies far from a question. This sentence gave fewest wrong adapters of ten that were tried."""


@dataclass(frozen=True)
class Bank:
    """Unit vectors of `topics` [t, d] and of the names of their `fields` [f, d]; `field_of` each topic [t]."""

    topics: Vectors
    fields: Vectors
    field_of: Indices


def read(text: str) -> dict[str, list[str]]:
    """Field to sentences, from the format that topics.txt explains."""
    fields: dict[str, list[str]] = {}
    for block in re.split(r"^## ", re.sub(r"^# .*\n", "", text, flags=re.M), flags=re.M)[1:]:
        name, _, body = block.partition("\n")
        lines = [line for line in body.splitlines() if line.strip()]
        phrases = " ".join(line for line in lines if not line.startswith(">"))
        spoken = " ".join(line[1:].strip() for line in lines if line.startswith(">"))
        fields[name.strip()] = [*map(PHRASING.format, _listed(phrases)), *_listed(spoken)]
    return fields


def load_bank(encoder: Encoder) -> Bank:
    """The bank in an encoder's space, from a file beside its graph where one is (2 s otherwise)."""
    fields = read(FILE.read_text(encoding="utf-8"))
    of = [index for index, listed in enumerate(fields.values()) for _ in listed]
    sentences = [*map(PHRASING.format, fields), *(sentence for listed in fields.values() for sentence in listed)]
    vectors = _stored(encoder, sentences)
    return Bank(vectors[len(fields) :], vectors[: len(fields)], np.array(of))


def _stored(encoder: Encoder, sentences: Sequence[str]) -> Vectors:
    digest = hashlib.blake2b("\0".join(sentences).encode(), digest_size=8).hexdigest()
    file = encoder.graph.with_name(f"{encoder.graph.stem}-topics-{digest}.npy")
    with contextlib.suppress(OSError, ValueError, EOFError):
        stored: Vectors = np.load(file)
        if len(stored) == len(sentences):
            return stored
    vectors = encoder.encode(sentences)
    # Where the folder cannot be written, the next start computes them again.
    with contextlib.suppress(OSError):
        temporary = file.with_name(f"{file.stem}-{os.getpid()}.tmp.npy")
        np.save(temporary, vectors)
        temporary.replace(file)
    return vectors


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(";") if item.strip()]

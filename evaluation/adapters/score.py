"""Marks of answers, by the libraries that others use."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters import ConfigError

ROBERTA, MINILM = "roberta-large", "minilm"
HUB_S = 10
"""How long the hub may take to say that it is there."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bert:
    """BERTScore with one model, named as reports show it."""

    title: str
    scorer: Any

    def scores(self, answers: Sequence[str], references: Sequence[str]) -> Floats:
        """F1 of each pair; an answer without words has 0."""
        found = np.zeros(len(answers))
        spoken = [index for index, answer in enumerate(answers) if answer.strip()]
        if spoken:
            _, _, f1 = self.scorer.score(
                [answers[index] for index in spoken], [references[index] for index in spoken]
            )
            found[spoken] = f1.numpy()
        return found


def load_bert(name: str | None) -> Bert:
    """`minilm`, a folder, or a model of the hub; None: roberta-large, and MiniLM where it cannot be had.

    Raises ConfigError in one line.
    """
    if name == MINILM:
        from router.classify.encoder import minilm_weights

        return _loaded(minilm_weights(), "all-MiniLM-L6-v2")
    if name is not None and Path(name).is_dir():
        return _loaded(Path(name), Path(name).name)
    wanted = name or ROBERTA
    try:
        return _loaded(_snapshot(wanted), wanted)
    except ConfigError:
        if name is not None:
            raise
        return load_bert(MINILM)


def rouge(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """ROUGE-L, F1 of each pair."""
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(references, answers, strict=True)
    return np.array([scorer.score(reference, answer)["rougeL"].fmeasure for reference, answer in pairs])


def grades(answers: Sequence[str]) -> Floats:
    """Flesch-Kincaid grade: years at school that a reader needs; NaN for an answer without words."""
    import textstat  # type: ignore[import-untyped]

    spoken = (any(letter.isalpha() for letter in answer) for answer in answers)
    return np.array(
        [
            textstat.flesch_kincaid_grade(answer) if words else math.nan
            for answer, words in zip(answers, spoken, strict=True)
        ]
    )


def _snapshot(name: str) -> Path:
    """Of the hub's cache, or of the hub. Raises ConfigError."""
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.txt", "model.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=files, local_files_only=True))
    except (OSError, ValueError):
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=files, etag_timeout=HUB_S))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = f"give a folder, or {MINILM}, which needs no hub"
        raise ConfigError(f"--bert {name}: cannot be had from the hub: {reason} ({advice})") from None


def _loaded(folder: Path, title: str) -> Bert:
    """Raises ConfigError."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from bert_score import BERTScorer  # type: ignore[import-untyped]
    from bert_score.utils import model2layers  # type: ignore[import-untyped]
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        # The layer that its authors found best; of a model that they did not try, the last.
        layers = model2layers.get(title) or AutoConfig.from_pretrained(folder).num_hidden_layers
        return Bert(title, BERTScorer(model_type=str(folder), num_layers=layers))
    except (OSError, ValueError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"--bert {title}: cannot be loaded from {folder}: {reason}") from None

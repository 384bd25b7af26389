"""Zero-shot choice by entailment: does the text entail "This text is about LABEL"? (Yin et al., 2019)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters import Stack

HYPOTHESIS = "This text is about {}."
DEFAULT_MODEL = "knowledgator/comprehend_it-base"
MAX_TOKENS = 512


class NliClassifier:
    """A cross-encoder that reads text and label together: one forward pass for all labels of all texts."""

    def __init__(self, model: Any, tokenizer: Any, labels: Mapping[str, str], base: str) -> None:
        """Raises ValueError when the model has no class named entailment or no class named contradiction."""
        ids = {str(name).lower(): int(index) for name, index in model.config.label2id.items()}
        if missing := {"entailment", "contradiction"} - set(ids):
            raise ValueError(f"not an NLI model: no class {', '.join(sorted(missing))} in {sorted(ids)}")
        self._model, self._tokenizer, self._base = model, tokenizer, base
        self._yes, self._no = ids["entailment"], ids["contradiction"]
        self._hypotheses = {name: HYPOTHESIS.format(label) for name, label in labels.items()}

    @classmethod
    def load(cls, stack: Stack, labels: Mapping[str, str]) -> NliClassifier:
        """With `router.model`'s weights. Raises ConfigError when they cannot be had or are no NLI model."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        name = stack.router.model or DEFAULT_MODEL
        folder = stack.file.parent / name
        source = str(folder) if folder.is_dir() else name
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForSequenceClassification.from_pretrained(source).eval()
            device = "cuda" if torch.cuda.is_available() else "cpu"
            return cls(model.to(device), tokenizer, labels, stack.base.name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise stack.error("router.model", f"{name} cannot be loaded: {reason}") from None

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Entailment less contradiction for every adapter; 0 for the base, which wins when all contradict."""
        import torch

        pairs = [(text, hypothesis) for text in texts for hypothesis in self._hypotheses.values()]
        batch = self._tokenizer(
            [text for text, _ in pairs], [hypothesis for _, hypothesis in pairs],
            truncation="only_first", max_length=MAX_TOKENS, padding=True, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            raw = self._model(**batch.to(self._model.device)).logits.float()
        margins = (raw[:, self._yes] - raw[:, self._no]).reshape(len(texts), -1).tolist()
        return [dict(zip(self._hypotheses, row, strict=True)) | {self._base: 0.0} for row in margins]

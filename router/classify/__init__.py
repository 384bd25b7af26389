"""Zero-shot classifiers behind one protocol: from the adapters' labels or weights, with no training (issue 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from adapters import ClassifierName, Stack, labels

Logits = Mapping[str, float]
"""One number for the base and one for every adapter that can be judged; the others take no share."""


class Classifier(Protocol):
    """Judges texts from what there is of the adapters. Called from one worker thread, never concurrently."""

    batches: bool
    """Several texts at once cost less than one after the other. Where they do not, each is answered by itself."""

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Per text, a logit for the base and one for every adapter that can be judged: a softmax makes them
        probabilities."""


class Relabelling(Classifier, Protocol):
    """A classifier of a stack whose adapters come and go."""

    def relabelled(self, labels: Mapping[str, str]) -> Relabelling:
        """The same weights for other labels, while this one goes on. Called in any thread."""


def load_classifiers(stack: Stack) -> dict[ClassifierName, Relabelling]:
    """Those that `router.classifier` names, in its order.

    Raises ConfigError when an adapter has no label, or when weights cannot be had.
    """
    texts = {name: label.text for name, label in labels(stack).items()}
    return {name: _load(stack, name, texts) for name in stack.router.classifier}


def _load(stack: Stack, name: ClassifierName, texts: Mapping[str, str]) -> Relabelling:
    # Imported when asked for: each brings libraries that the others do without.
    match name:
        case "nli":
            from router.classify.nli import NliClassifier

            return NliClassifier.load(stack, texts)
        case "scoring":
            from router.classify.scoring import ScoringClassifier

            return ScoringClassifier.load(stack, texts)
        case "embedding":
            from router.classify.embedding import EmbeddingClassifier

            return EmbeddingClassifier.load(stack, texts)
        case "spectral":
            from router.classify.spectral import SpectralClassifier

            return SpectralClassifier.load(stack, texts)

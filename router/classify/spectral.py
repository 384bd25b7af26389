"""The adapters' own weights as a classifier: whose answer to a text would be the strongest (SpectR, LAG).

The engine reads a text once with the base alone, and says how much each adapter would change what its layers make
of it, as a share of what all would (‖ΔW x‖, arXiv 2504.03454, 2507.05346). No labels, no data, no second model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from adapters import Stack, split
from router.classify.engine import MAX_TOKENS, Engine, EngineError, at_once, head_and_tail

TINY = 1e-9


class SpectralClassifier:
    """Asks the engine when it is asked itself: the engine need not be up before."""

    batches = True

    def __init__(self, engine: Engine, names: Iterable[str], base: str) -> None:
        self._engine, self._names, self._base = engine, frozenset(names), base

    @classmethod
    def load(cls, stack: Stack, labels: Mapping[str, str]) -> SpectralClassifier:
        """With the stack's engine, which is not asked yet. Of the labels only the names count."""
        return cls(Engine(stack.engine_url, stack.base.name), labels, stack.base.name)

    def relabelled(self, labels: Mapping[str, str]) -> SpectralClassifier:
        """A new one on the same engine."""
        return SpectralClassifier(self._engine, labels, self._base)

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """For each adapter that the engine has, the log of its share over that of chance; 0 for the base.

        Raises EngineError, also where the engine has none of them.
        """
        return at_once(self._judge, texts)

    def _judge(self, text: str) -> dict[str, float]:
        tokens, most = self._engine.tokens(text)
        room = min(MAX_TOKENS, most - 1)  # one token is the answer's
        shares = self._engine.spectral(head_and_tail(tokens, room)) if tokens else {}
        logits = {self._base: 0.0}
        for part, share in shares.items():
            name = split(part)[0]
            if name in self._names:
                logit = math.log(max(share * len(shares), TINY))
                logits[name] = max(logit, logits.get(name, logit))  # of its versions, the one that fits best
        if tokens and len(logits) == 1:
            raise EngineError(f"the engine judges {', '.join(shares) or 'no adapter'}: none of this stack's")
        return logits

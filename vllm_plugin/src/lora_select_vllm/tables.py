"""The virtual adapters of a worker as tensors: who belongs to which library, by library slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora_select_vllm.spec import MOST_LIBRARIES

MOST_VIRTUAL, LATE = 20, 4
"""Of them at once, those that drain included; the last few are kept for requests that come too late."""


@dataclass(eq=False)
class Tables:
    """V = MOST_VIRTUAL virtual adapters, L = MOST_LIBRARIES libraries in each, n library slots; changed in place.

    `member` [V, L, n], `k` [V], `projection` [V] and `observe` [V] are what a row's virtual index looks up.
    `libraries` and `width` bound what of L and n is in use.
    """

    member: torch.Tensor
    k: torch.Tensor
    projection: torch.Tensor
    observe: torch.Tensor
    libraries: int = 0
    width: int = 0

    @classmethod
    def of(cls, slots: int, device: torch.device | str) -> Tables:
        """For so many library slots."""
        return cls(
            torch.zeros(MOST_VIRTUAL, MOST_LIBRARIES, slots, dtype=torch.bool, device=device),
            torch.ones(MOST_VIRTUAL, dtype=torch.int64, device=device),
            torch.zeros(MOST_VIRTUAL, dtype=torch.bool, device=device),
            torch.zeros(MOST_VIRTUAL, dtype=torch.bool, device=device),
        )

    def put(self, index: int, libraries: Sequence[Sequence[int]], k: int, projection: bool, observe: bool) -> None:
        """Virtual adapter `index` chooses from these library slots."""
        self.clear(index)
        for number, places in enumerate(libraries):
            self.member[index, number, list(places)] = True
        self.k[index], self.projection[index], self.observe[index] = k, projection, observe
        self._bound()

    def clear(self, index: int) -> None:
        """It is gone."""
        self.member[index] = False
        self._bound()

    def _bound(self) -> None:
        used = self.member.any(dim=0).cpu()
        self.libraries = _last(used.any(dim=1))
        self.width = _last(used.any(dim=0))


def _last(used: torch.Tensor) -> int:
    return int(used.nonzero().max()) + 1 if used.any() else 0

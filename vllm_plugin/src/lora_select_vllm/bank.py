"""A linear layer's side of the library: members' weights as scores need them, and how often each was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lora_select_vllm.lag import constants


@dataclass(eq=False)
class Slice:
    """One projection of a layer (q, k or v of a packed one). n library slots, rank r.

    `a` [n, r, in] is what z is computed with: the slots themselves, or a copy in float32 where the device
    multiplies in its own dtype only. `w` [n, 2r + 1, r]: `lag.constants`. `present` [n]: who adapts it
    at all. `chosen` [n]: tokens so far.
    """

    slots: torch.Tensor
    a: torch.Tensor
    w: torch.Tensor
    present: torch.Tensor
    chosen: torch.Tensor


@dataclass(eq=False)
class Bank:
    """All slices of a linear layer. `layer` [1]: the number of the model's layer that it is in. `summed`: its
    input is spread over ranks, and z is summed before it is scored.

    `adapted`, per slice and slot, those of vLLM's own included: whether the adapter there does anything to it.
    """

    name: str
    slices: tuple[Slice, ...]
    layer: torch.Tensor
    adapted: list[list[bool]]
    summed: Callable[[torch.Tensor], torch.Tensor] | None = field(default=None)

    @classmethod
    def of(
        cls,
        name: str,
        a_stacked: Sequence[torch.Tensor],
        first: int,
        summed: Callable[[torch.Tensor], torch.Tensor] | None,
        layer: int = 0,
    ) -> Bank:
        """Of a layer's `lora_a_stacked`, each [slots, 1, r, in], whose library slots begin at `first`."""
        adapted = [[True] * len(a) for a in a_stacked]
        # As a tensor, with which the compiled graphs of all layers are one and the same.
        number = torch.tensor([layer], device=a_stacked[0].device)
        return cls(name, tuple(_slice(a[first:, 0]) for a in a_stacked), number, adapted, summed)

    def look(self, slot: int, b_stacked: Sequence[torch.Tensor]) -> None:
        """See what the adapter in that slot does, by the layer's `lora_b_stacked`."""
        for adapted, b in zip(self.adapted, b_stacked, strict=True):
            adapted[slot] = bool(b[slot].any())

    def put(self, place: int, a: Sequence[torch.Tensor | None], b: Sequence[torch.Tensor | None]) -> None:
        """Take in an adapter whose weights are in that library slot: per slice A [r, in] and scaled B [out, r], of
        the whole layer, None where it has none."""
        self.clear(place)
        for one, a_full, b_full in zip(self.slices, a, b, strict=True):
            if a_full is None or b_full is None:
                continue
            rank, padded = a_full.shape[0], one.slots.shape[1]
            found = constants(a_full, b_full)
            rows = torch.arange(rank + 1, device=found.device)
            # Slots are padded to the engine's highest rank.
            one.w[place, : rank + 1, :rank] = found[rows].to(one.w.device)
            one.w[place, padded + 1 : padded + 1 + rank, :rank] = found[rank + 1 :].to(one.w.device)
            one.present[place] = bool(found.any())
            if one.a is not one.slots:
                one.a[place].copy_(one.slots[place])

    def clear(self, place: int) -> list[int]:
        """Nobody is in that library slot any more. Returns, per slice, the tokens of whoever was."""
        chosen = [int(one.chosen[place]) for one in self.slices]
        for one in self.slices:
            one.w[place] = 0
            one.present[place] = False
            one.chosen[place] = 0
        return chosen

    def counted(self) -> list[list[int]]:
        """Per slice, tokens per library slot so far."""
        return [one.chosen.tolist() for one in self.slices]


class Layer:
    """A linear layer's own access to the wrapper that all of them share: it brings its bank along."""

    def __init__(self, shared: Any, bank: Bank) -> None:
        self._shared, self.bank = shared, bank

    def add_lora_linear(self, *args: Any, **kwargs: Any) -> None:
        """The wrapper's."""
        self._shared.add_lora_linear(*args, bank=self.bank, **kwargs)


def _slice(slots: torch.Tensor) -> Slice:
    count, rank, _ = slots.shape
    like: dict[str, Any] = {"device": slots.device}
    # CUDA multiplies 16 bits into float32 by itself.
    copied = slots.dtype != torch.float32 and not slots.is_cuda
    return Slice(
        slots,
        torch.zeros(slots.shape, dtype=torch.float32, **like) if copied else slots,
        torch.zeros(count, 2 * rank + 1, rank, **like),
        torch.zeros(count, dtype=torch.bool, **like),
        torch.zeros(count, dtype=torch.int64, **like),
    )

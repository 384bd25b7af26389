"""A layer with LAG's CUDA wrapper on CPU tensors, and what plain torch says that it adds. Imported before vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch

# vLLM's CPU build takes Triton on only where it finds a backend of this name; the interpreter uses none.
from triton.backends import backends  # type: ignore[import-untyped]

backends["cpu"] = backends["nvidia"]

from lora_select_vllm.bank import Bank  # noqa: E402
from lora_select_vllm.gpu import RoutedPunicaGPU  # noqa: E402
from vllm.lora.layers import LoRAMapping  # noqa: E402

FIXED, LIBRARY, RANK, INPUTS, COLUMNS = 2, 4, 16, 64, (48, 32)
LAYERS, NUMBER = 3, 1
"""Of the model, and which of them this layer is in."""
SLOTS = FIXED + LIBRARY
ROWS, PADDED = 24, 32
IDS: list[int | None] = [1, 2, 3, 4, 5, 6, *range(11, 18)]
"""By slot: two fixed adapters, four members, and virtual adapters behind the slots."""
BASE, OBSERVER = 0, 17
# id of a virtual adapter: libraries, k, projection, observe
VIRTUAL = {
    11: (((0, 1, 2, 3),), 1, False, False),
    12: (((0, 1, 2, 3),), 2, False, False),
    13: (((0, 1, 2, 3),), 4, False, False),
    14: (((0, 1, 2, 3),), 3, True, False),
    15: (((0, 1), (2, 3)), 1, False, False),
    16: (((3, 1), (2, 0)), 2, True, False),
    OBSERVER: (((0, 1, 2, 3),), 4, False, True),
}


@dataclass
class Layer:
    """A layer of two projections, with weights in all slots."""

    a: tuple[torch.Tensor, ...]
    b: tuple[torch.Tensor, ...]
    bank: Bank
    wrapper: RoutedPunicaGPU

    def mapped(self, ids: Sequence[int]) -> None:
        """The rows' adapters from now on."""
        self.wrapper.update_metadata(LoRAMapping(tuple(ids), (0,), is_prefill=True), IDS, SLOTS + 1, 100)

    def add(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """As vLLM's layer calls it."""
        self.wrapper.add_lora_linear(y, x, self.a, self.b, 1.0, COLUMNS, bank=self.bank)
        return y


def ranked(slot: int) -> int:
    """Its rank; the others' columns are padding."""
    return 8 if slot == FIXED + 1 else RANK


def absent(slot: int, projection: int) -> bool:
    """Whether the adapter has nothing there."""
    return (slot, projection) in {(FIXED + 3, 1), (1, 0)}


def made(inputs: slice = slice(None), summed: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Layer:
    """The same weights each time; with `inputs`, a rank's part of them."""
    torch.manual_seed(0)
    a = tuple(torch.randn(SLOTS, 1, RANK, INPUTS).half() for _ in COLUMNS)
    b = tuple((torch.randn(SLOTS, 1, out, RANK) / 8).half() for out in COLUMNS)
    for part, (down, up) in enumerate(zip(a, b, strict=True)):
        for slot in range(SLOTS):
            rank = 0 if absent(slot, part) else ranked(slot)
            down[slot, :, rank:], up[slot, ..., rank:] = 0, 0
    config = SimpleNamespace(max_loras=FIXED, specialize_active_lora=False, max_lora_rank=RANK)
    wrapper = RoutedPunicaGPU(PADDED, 8, "cpu", lora_config=config)
    wrapper.take_library(LIBRARY, LAYERS)
    for index, told in enumerate(VIRTUAL.values()):
        wrapper.tables.put(index, *told)
    held = tuple(down[..., inputs].contiguous() for down in a)
    bank = Bank.of("qk_proj", held, FIXED, summed, NUMBER)
    for place, slot in enumerate(range(FIXED, SLOTS)):
        rank = ranked(slot)
        has = [not absent(slot, part) for part in range(len(COLUMNS))]
        downs = [down[slot, 0, :rank] if there else None for down, there in zip(a, has, strict=True)]
        ups = [up[slot, 0, :, :rank] if there else None for up, there in zip(b, has, strict=True)]
        bank.put(place, downs, ups)
    return Layer(held, b, bank, wrapper)


def picked(layer: Layer, x: torch.Tensor, part: int, adapter: int) -> list[int]:
    """The slots whose deltas row `x` [in] gets: plain float64, with an SVD of every delta."""
    if adapter < 11:
        return [IDS.index(adapter)] if adapter else []
    libraries, k, projection, _ = VIRTUAL[adapter]
    chosen = []
    for library in libraries:
        found = {}
        for slot in (FIXED + place for place in sorted(library) if not absent(FIXED + place, part)):
            _, s, v = torch.linalg.svd(delta(layer, slot, part), full_matrices=False)
            v = v[: ranked(slot)] @ x.double()
            found[slot] = (v[0].abs().item(), (v if projection else s[: ranked(slot)] * v).norm().item())
        kept = sorted(found, key=lambda slot: -found[slot][0])[:k]
        chosen += [max(kept, key=lambda slot: found[slot][1])] if kept else []
    return chosen


def delta(layer: Layer, slot: int, part: int) -> torch.Tensor:
    """B A, in float64."""
    return layer.b[part][slot, 0].double() @ layer.a[part][slot, 0].double()


def expected(layer: Layer, x: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """What is added to each row."""
    added = torch.zeros(len(x), sum(COLUMNS), dtype=torch.float64)
    for row, adapter in enumerate(ids):
        for part, columns in enumerate(added[row].split(COLUMNS)):
            for slot in picked(layer, x[row], part, adapter) if adapter != OBSERVER else ():
                columns.add_(delta(layer, slot, part) @ x[row].double())
    return added


def cycled(*adapters: int) -> list[int]:
    return [adapters[row % len(adapters)] for row in range(ROWS)]


BATCHES = {
    "mixed": cycled(BASE, 11, 1, 12, 4, 13, 2, 14, 15, 6, 16, OBSERVER),
    "none of LAG": cycled(BASE, 1, 2, 5),
    "all of LAG": cycled(11, 12, 13, 14, 15, 16),
    "base": cycled(BASE),
    "observed": cycled(OBSERVER),
}

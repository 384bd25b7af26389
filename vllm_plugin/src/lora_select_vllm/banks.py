"""The banks of all linear layers of a model: filled and emptied together, slot by slot."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from vllm.distributed import tensor_model_parallel_all_reduce
from vllm.lora.layers import RowParallelLinearWithLoRA
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.lora_weights import LoRALayerWeights

from lora_select_vllm.bank import Bank, Layer


class Banks:
    """Of the linear layers among `modules`, by name; their library slots begin at `first`. `packed` has the
    projections of those that hold several, as an adapter's files name them. `layers`: the model's, by name."""

    def __init__(self, modules: Mapping[str, Any], packed: Mapping[str, Sequence[str]], first: int) -> None:
        self._layers = {name: one for name, one in modules.items() if isinstance(one, BaseLinearLayerWithLoRA)}
        self.layers = tuple(dict.fromkeys(map(layer_of, self._layers)))
        self._banks = {
            name: _bank(name, layer, first, self.layers.index(layer_of(name)))
            for name, layer in self._layers.items()
        }
        self._packed = packed
        self._left: dict[str, Counter[str]] = defaultdict(Counter)  # by projection, of members that have left
        for name, layer in self._layers.items():
            layer.set_mapping(Layer(layer.punica_wrapper, self._banks[name]))

    def look(self, slot: int) -> None:
        """See what the adapter that has just come into a slot, any, adapts at all."""
        for name, bank in self._banks.items():
            bank.look(slot, self._layers[name].lora_b_stacked)

    def fill(self, place: int, weights_of: Callable[[str], LoRALayerWeights | None]) -> None:
        """An adapter has come into a library slot; `weights_of` a module are those of the whole layer."""
        for name, bank in self._banks.items():
            weights = weights_of(name)
            if weights is None:
                bank.clear(place)
                continue
            a, b = weights.lora_a, weights.lora_b
            if isinstance(a, torch.Tensor):
                a, b = [a], [b]
            elif len(b) != len(bank.slices):
                a, b = self._layers[name].expand_packed_lora(a, b)
            bank.put(place, a, b)

    def clear(self, place: int, adapter: str) -> None:
        """The adapter of that name leaves its library slot; what was counted of it stays."""
        for name, bank in self._banks.items():
            for projection, tokens in zip(self._projections(name), bank.clear(place), strict=True):
                self._left[projection][adapter] += tokens

    def counted(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Per projection, the tokens of every adapter since the start, by name; `names`: who is in each library
        slot now."""
        found = {}
        for name, bank in self._banks.items():
            for projection, tokens in zip(self._projections(name), bank.counted(), strict=True):
                now = Counter({adapter: count for adapter, count in zip(names, tokens, strict=True) if adapter})
                found[projection] = dict(now + self._left[projection])
        return found

    def _projections(self, layer: str) -> Sequence[str]:
        count, packed = len(self._banks[layer].slices), self._packed.get(layer, [layer])
        return packed if len(packed) == count else [f"{layer}[{number}]" for number in range(count)]


def layer_of(module: str) -> str:
    """The layer of the model that a module is in, "model.layers.3"; the module itself where none is numbered."""
    numbered = re.match(r"(?:.*\.)?\d+(?=\.)", module)
    return numbered[0] if numbered else module


def _bank(name: str, layer: Any, first: int, number: int) -> Bank:
    spread = isinstance(layer, RowParallelLinearWithLoRA) and layer.tp_size > 1
    summed = tensor_model_parallel_all_reduce if spread else None
    return Bank.of(name, layer.lora_a_stacked, first, summed, number)

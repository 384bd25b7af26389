"""Adapters on the CPU: rows grouped by slot, one matrix product for each group; base rows are left alone.

vLLM's own operators copy every row's weights, [tokens, r, in], and up to 0.32 give base rows, whose slot is -1,
the last slot's adapter (vllm#48421).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from lora_select_vllm.bank import Bank, Slice
from lora_select_vllm.lag import choose, scores
from lora_select_vllm.rows import Group, Index, grouped, index
from lora_select_vllm.tables import Tables
from lora_select_vllm.trace import Trace


@dataclass(frozen=True, eq=False)
class Routed:
    """The rows of virtual adapters, T of them, and what holds for each: `member` [T, L, n], `k`, `projection` and
    `observe` [T], `observed`: of any row."""

    rows: Index
    member: torch.Tensor
    k: torch.Tensor
    projection: torch.Tensor
    observe: torch.Tensor
    observed: bool

    @classmethod
    def of(cls, kinds: torch.Tensor, tables: Tables) -> Routed | None:
        """For each token's virtual adapter [tokens], below 0 where it has none."""
        rows = (kinds >= 0).nonzero().squeeze(1)
        if not len(rows) or not tables.width:  # the latter for requests that come too late
            return None
        kinds = kinds[rows]
        member = tables.member[kinds, : tables.libraries, : tables.width]
        observe = tables.observe[kinds]
        return cls(index(rows), member, tables.k[kinds], tables.projection[kinds], observe, bool(observe.any()))


class GroupedPunica(PunicaWrapperCPU):
    """vLLM's wrapper for one model. Slots from `slots` on in its mapping are virtual adapters of `tables`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots: int = kwargs["lora_config"].max_loras
        self.first = self.slots
        self.tables = Tables.of(0, self.device)
        self.trace = Trace(0)
        self._fixed: list[Group] = []
        self._sampled: list[Group] = []
        self._routed: Routed | None = None

    def take_library(self, slots: int, layers: int) -> None:
        """Behind the first slots come so many for the library, of a model with so many layers."""
        self.slots += slots
        self.tables = Tables.of(slots, self.device)
        self.trace = Trace(layers)

    def update_metadata(
        self, mapping: LoRAMapping, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **_: Any
    ) -> None:
        """Group the rows of the steps that follow."""
        self._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        tokens, sampled = self.token_lora_indices, self.sampler_indices
        virtual = tokens >= self.slots
        self._routed = Routed.of(torch.where(virtual, tokens - self.slots, -1), self.tables)
        # vLLM's own code looks up embeddings and heads by these, and a virtual adapter has none.
        self._embeddings_indices[..., : len(tokens)].masked_fill_(virtual, 0)  # 0.26 has two rows
        tokens.masked_fill_(virtual, -1)
        sampled.masked_fill_(sampled >= self.slots, -1)
        self._fixed, self._sampled = grouped(tokens), grouped(sampled)
        self.no_lora = not self._fixed

    @property
    def routed_rows(self) -> int:
        """How many rows of this step are virtual adapters'."""
        return 0 if self._routed is None else len(self._routed.k)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        bank: Bank | None = None,
        **_: Any,
    ) -> None:
        """y += scale · x Aᵀ Bᵀ, slice by slice, each row with its own adapter; see vLLM's for the shapes."""
        if not self._fixed and self._routed is None:
            return
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        parts = y.split(output_slices, dim=1)
        for group in self._fixed:
            for at, (part, a, b) in enumerate(zip(parts, lora_a_stacked, lora_b_stacked, strict=True)):
                if bank is None or any(bank.adapted[at][group.slots]):
                    group.expand(part, _scaled(group.shrink(x, a[:, 0]), scale), b[:, 0])
        if self._routed is not None and bank is not None:
            its = x[self._routed.rows].float()
            for at, (part, b, one) in enumerate(zip(parts, lora_b_stacked, bank.slices, strict=True)):
                if any(bank.adapted[at][self.first :]):
                    self._add_routed(part, its, one, b[self.first :, 0], bank)

    def _add_routed(self, part: torch.Tensor, x: torch.Tensor, one: Slice, b: torch.Tensor, bank: Bank) -> None:
        routed, width = self._routed, self.tables.width
        assert routed is not None
        a = one.a[:width]
        z = (x @ a.flatten(0, 1).T).unflatten(1, (width, -1))
        # A copy, since the sum over ranks works in place.
        whole = z if bank.summed is None else bank.summed(z.clone())
        arrow, norm, projected = scores(whole, one.w[:width])
        score = torch.where(routed.projection.unsqueeze(1), projected, norm)
        present = one.present[:width]
        for member in (routed.member & present).unbind(1):
            chosen = choose(arrow, score, member, routed.k)
            observe = routed.observe if routed.observed else None
            self.trace.count(chosen, score, member, one.chosen, observe, int(bank.layer))
            for group in grouped(chosen.masked_fill(routed.observe, -1)):
                group.within(routed.rows).expand(part, z[group.rows, group.places()], b)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **_: Any
    ) -> None:
        """y += x Bᵀ for `x` [tokens, r], what the adapters' own embeddings gave."""
        assert add_inputs
        for group in self._fixed:
            group.expand(y, x[group.rows], lora_b_stacked[:, 0])

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_: Any,
    ) -> None:
        """y += scale · x Aᵀ Bᵀ for the rows that are sampled."""
        a, b = lora_a_stacked[:, 0], lora_b_stacked[:, 0]
        for group in self._heads(len(x)):
            if a[group.slots].any():  # few adapters have a head, and this one is as wide as the vocabulary
                # The head and its adapter may be padded differently.
                z = _scaled(group.shrink(x, a), scale)
                group.expand(y[:, : b.shape[1]], z, b[:, : y.shape[-1]])

    def _heads(self, rows: int) -> list[Group]:
        """Adapters of the rows that get logits. For the log-probabilities of a prompt, vLLM asks with the rows of
        one request and does not say whose: where all are of one adapter, it is that one's."""
        if rows == len(self.sampler_indices):
            return self._sampled
        slots = self.sampler_indices.unique().tolist()
        if len(slots) != 1 or slots[0] < 0:
            return []
        return [Group(slice(slots[0], slots[0] + 1), slice(0, rows))]


def _scaled(z: torch.Tensor, scale: float) -> torch.Tensor:
    return z if scale == 1 else z * scale

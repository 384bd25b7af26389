"""Adapters on CUDA: vLLM's wrapper with its Triton kernels, and LAG as an operator that CUDA graphs can hold.

Rows of fixed adapters go through vLLM's own code. For rows of virtual ones every call scores all library slots,
chooses, and adds what was chosen (`routed_op`, `kernels`). Everything that the operator reads is in tensors that
stay where they are, since a captured graph knows them by address: a step changes what is in them.

Checked, on CPU tensors and under Triton's interpreter (tests/test_lag_gpu.py): fixed and routed rows, mixed,
against plain torch; rows that a graph pads with; that torch.compile traces a layer as one graph; two ranks; and
that the kernels compile for several GPUs. On a GPU for two minutes (docs/lag.md), with other kernels: CUDA graphs,
bfloat16, a whole engine; right as far as it went. Not checked: these kernels on a GPU, ranks over NCCL.
`take_library` says at start that this is unproven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm import envs
from vllm.logger import init_logger
from vllm.lora.layers import LoRAMapping
from vllm.lora.ops.triton_ops import LoRAKernelMeta
from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from lora_select_vllm import routed_op
from lora_select_vllm.bank import Bank
from lora_select_vllm.kernels import MOST
from lora_select_vllm.tables import Tables
from lora_select_vllm.trace import Rows, Trace

# Below vLLM's own name, or nobody prints it.
logger = init_logger(f"vllm.{__name__}")
UNPROVEN = (
    "LAG on CUDA is unproven: an earlier form ran there for minutes, these kernels not at all (docs/lag.md)."
)


class SteadyTrace(Trace):
    """Counts in tensors that stay, with a row for each of the batch: `votes` [tokens, layers, n], `shares`."""

    def __init__(self, tokens: int, layers: int, slots: int, device: torch.device | str) -> None:
        super().__init__(layers)
        self.votes = torch.zeros(tokens, layers, slots, dtype=torch.uint8, device=device)
        self.shares = torch.zeros(tokens, slots, device=device)

    def begin(self, step: Sequence[Rows], width: int, device: torch.device | str) -> None:
        """The step before is over; this one has these routed rows."""
        del width, device
        self._fold()
        self._step = step
        self.votes.zero_()
        self.shares.zero_()

    def _fold(self) -> None:
        if self._step:
            parts = [slice(one.row, one.row + one.count) for one in self._step]
            self._votes = torch.cat([self.votes[part] for part in parts])
            self._shares = torch.cat([self.shares[part] for part in parts])
        super()._fold()


@dataclass(frozen=True, eq=False)
class Routed:
    """What the operator reads of each row: `member` [tokens, L, n], `k`, `projection` and `observe` [tokens], as
    in Tables. A row that is not a virtual adapter's has no member."""

    member: torch.Tensor
    k: torch.Tensor
    projection: torch.Tensor
    observe: torch.Tensor

    @classmethod
    def of(cls, tokens: int, tables: Tables) -> Routed:
        """No such row yet, of at most so many."""
        its = (tables.member, tables.k, tables.projection, tables.observe)
        return cls(*(one.new_zeros(tokens, *one.shape[1:]) for one in its))

    def fill(self, kinds: torch.Tensor, tables: Tables) -> None:
        """For rows' virtual adapters, below 0 where there is none; rows that follow are nobody's."""
        rows, its = len(kinds), kinds.clamp_min(0)
        # A graph pads its rows, and would find those of an earlier step.
        self.member[rows:] = False
        self.member[:rows] = tables.member[its] & (kinds >= 0).view(-1, 1, 1)
        self.k[:rows], self.projection[:rows], self.observe[:rows] = (
            tables.k[its],
            tables.projection[its],
            tables.observe[its],
        )


class RoutedPunicaGPU(PunicaWrapperGPU):  # type: ignore[misc]  # final to type checkers
    """vLLM's wrapper for one model. Slots from `slots` on in its mapping are virtual adapters of `tables`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots: int = self.max_loras
        self.first = self.slots
        self.tables = Tables.of(0, self.device)
        self.trace = SteadyTrace(0, 0, 0, self.device)
        self.routed = Routed.of(0, self.tables)
        self.idle = torch.ones(1, dtype=torch.bool, device="cpu")

    def take_library(self, slots: int, layers: int) -> None:
        """Behind the first slots come so many for the library, of a model with so many layers.

        Raises ValueError for what cannot be with it.
        """
        if self.lora_config.specialize_active_lora:
            raise ValueError(
                "LAG decides inside a CUDA graph who is active: it cannot work with --specialize-active-lora"
            )
        if envs.VLLM_LORA_ENABLE_DUAL_STREAM:
            raise ValueError("LAG cannot work with VLLM_LORA_ENABLE_DUAL_STREAM=1")
        if slots * self.lora_config.max_lora_rank > MOST:
            rank = self.lora_config.max_lora_rank
            raise ValueError(f"LAG on CUDA: {slots} library slots of rank {rank}, {MOST} in all at most")
        routed_op.register()
        logger.warning_once(UNPROVEN)
        tokens = len(self._token_lora_indices)
        self.slots += slots
        self.max_loras = self.slots
        self.tables = Tables.of(slots, self.device)
        self.routed = Routed.of(tokens, self.tables)
        self.trace = SteadyTrace(tokens, layers, slots, self.device)
        self.token_mapping_meta, self.prompt_mapping_meta = (
            LoRAKernelMeta.make(self.slots, tokens, device=self.device) for _ in range(2)
        )

    def _update_base_metadata(
        self, mapping: LoRAMapping, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int
    ) -> None:
        super()._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        if self.slots == self.first:
            return
        with gpu_sync_allowed():  # as vLLM's own does behind this
            self._split(self.token_lora_indices, self.sampler_indices)

    def _split(self, tokens: torch.Tensor, sampled: torch.Tensor) -> None:
        """Take the rows of virtual adapters out of vLLM's mapping, and into `routed`."""
        virtual = tokens >= self.slots
        self.routed.fill(torch.where(virtual, tokens - self.slots, -1), self.tables)
        # Until there is a virtual adapter, vLLM compiles kernels and captures graphs, with adapters of its own.
        asking = virtual if self.tables.libraries else tokens >= 0
        self.idle[0] = not bool(asking.any())
        # vLLM's own code looks up embeddings and heads by these, and a virtual adapter has none.
        self._embeddings_indices[..., : len(tokens)].masked_fill_(virtual, 0)  # 0.26 has two rows
        tokens.masked_fill_(virtual, -1)
        sampled.masked_fill_(sampled >= self.slots, -1)

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
        **kwargs: Any,
    ) -> None:
        """y += scale · x Aᵀ Bᵀ, slice by slice, each row with its own adapter; see vLLM's for the shapes."""
        super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **kwargs)
        if bank is None:
            return
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        routed, trace, offset = self.routed, self.trace, 0
        for one, b, columns in zip(bank.slices, lora_b_stacked, output_slices, strict=True):
            torch.ops.vllm.lora_select_add_routed(
                y,
                x,
                one.a,
                one.w,
                b,
                one.present,
                routed.member,
                routed.k,
                routed.projection,
                routed.observe,
                one.chosen,
                trace.votes,
                trace.shares,
                bank.layer,
                self.idle,
                self.first,
                offset,
                bank.summed is not None,
            )
            offset += columns

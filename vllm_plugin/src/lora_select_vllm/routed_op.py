"""LAG of one projection as one operator of torch, for torch.compile and CUDA graphs: no shape depends on data, and
nothing waits for the device. Imported on CUDA only, since vLLM's Triton kernels are.

n library slots, rank r, T rows, L libraries of a virtual adapter at most.
"""

from __future__ import annotations

import torch
from vllm.distributed import tensor_model_parallel_all_reduce
from vllm.lora.ops.triton_ops import lora_expand
from vllm.utils.torch_utils import direct_register_custom_op

from lora_select_vllm.lag import choose, scores

NAME = "lora_select_add_routed"

Meta = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def kernel_meta(slots_of_rows: torch.Tensor, slots: int) -> Meta:
    """The tensors of vLLM's LoRAKernelMeta, in its order, for rows' slots [T], -1 where there is none.

    Those are token_lora_mapping, token_indices_sorted_by_lora_ids, active_lora_ids, num_tokens_per_lora and
    lora_token_start_loc. vLLM lists the ids that occur, and waits for the device to know how many those are; here
    every id from -1 to `slots` - 1 is listed, and a kernel leaves at once where there are no rows. With
    `slots_of_rows` [L, T] all but the ids are of L mappings.
    """
    ascending, order = torch.sort(slots_of_rows, stable=True)
    bounds = torch.arange(-1, slots + 1, dtype=slots_of_rows.dtype, device=slots_of_rows.device)
    start = torch.searchsorted(ascending, bounds.expand(*ascending.shape[:-1], -1).contiguous(), out_int32=True)
    return slots_of_rows.int(), order.int(), bounds[:-1].int(), start.diff(dim=-1), start


def add_routed(
    y: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    w: torch.Tensor,
    b: torch.Tensor,
    present: torch.Tensor,
    member: torch.Tensor,
    k: torch.Tensor,
    projection: torch.Tensor,
    observe: torch.Tensor,
    chosen: torch.Tensor,
    votes: torch.Tensor,
    shares: torch.Tensor,
    layer: torch.Tensor,
    idle: torch.Tensor,
    first: int,
    offset: int,
    spread: bool,
) -> None:
    """Choose for each row of a virtual adapter, and add what is chosen to `y` [T, outs], from column `offset` on.

    `x` [T, in]; `a`, `w`, `present`, `chosen` as in bank.Slice; `b` [slots, 1, out, r] of all slots, with the
    library from `first` on. By row, of T or more: `member` [T, L, n], nobody for other rows, `k`, `projection` and
    `observe` [T] as in tables.Tables, `votes` [T, layers, n] and `shares` [T, n] as in trace.Trace. `layer` [1]:
    as in bank.Bank. `idle` [1], on the CPU: no row is to be routed. `spread`: `x` and `a` are a rank's part of the
    inputs.
    """
    if idle.item():
        return
    tokens, slots = len(x), len(a)
    member, k, projection, observe = member[:tokens] & present, k[:tokens], projection[:tokens], observe[:tokens]
    z = shrunk(x, a)
    # A copy, since the sum over ranks may work in place, and a rank's own b needs its own part.
    arrow, norm, projected = scores(tensor_model_parallel_all_reduce(z.clone()) if spread else z, w)
    score = torch.where(projection.unsqueeze(1), projected, norm)
    best = _choose(arrow, score, member, k)
    _count(best, score, member, observe, chosen, votes[:tokens], shares[:tokens], layer)
    buffer = z.gather(1, best.T.clamp_min(0).unsqueeze(-1).expand(-1, -1, z.shape[-1])).transpose(0, 1)
    _expand(y, buffer.contiguous(), b[first:], best.masked_fill(observe, -1), slots, offset)


def shrunk(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """z = A x of all library slots in float32, [T, n, r], for `x` [T, in] and `a` [n, r, in]."""
    flat = a.flatten(0, 1).T
    if x.is_cuda and x.dtype != torch.float32:
        z = torch.mm(x, flat, out_dtype=torch.float32)
    else:
        z = x.float() @ flat.float()
    return z.unflatten(1, a.shape[:2])


def _choose(arrow: torch.Tensor, score: torch.Tensor, member: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """`lag.choose` for each library, [L, T]."""
    libraries = member.shape[1]
    arrow, score, k = (one.repeat_interleave(libraries, dim=0) for one in (arrow, score, k))
    return choose(arrow, score, member.flatten(0, 1), k).unflatten(0, (-1, libraries)).T


def _count(
    best: torch.Tensor,
    score: torch.Tensor,
    member: torch.Tensor,
    observe: torch.Tensor,
    chosen: torch.Tensor,
    votes: torch.Tensor,
    shares: torch.Tensor,
    layer: torch.Tensor,
) -> None:
    one = best.unsqueeze(-1) == torch.arange(score.shape[1], device=score.device)
    chosen += (one & ~observe.view(1, -1, 1)).sum(dim=(0, 1))
    votes.index_add_(1, layer, one.sum(dim=0, dtype=votes.dtype).unsqueeze(1))
    score = score.unsqueeze(1).masked_fill(~member, 0)
    shares += (score / score.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(score.dtype).tiny)).sum(dim=1)


def _expand(
    y: torch.Tensor, z: torch.Tensor, b: torch.Tensor, best: torch.Tensor, slots: int, offset: int
) -> None:
    mapping, order, ids, count, start = kernel_meta(best, slots)
    no_lora, active = torch.tensor([False], device="cpu"), torch.tensor([slots + 1], device="cpu")
    # One library after the other: two may have chosen for the same row.
    for one in range(len(best)):
        lora_expand(
            z[one : one + 1],
            [b],
            y,
            mapping[one],
            order[one],
            count[one],
            start[one],
            ids,
            no_lora,
            active,
            offset_start=offset,
            add_inputs=True,
        )


def _fake(*_: object) -> None: ...


def register() -> None:
    """Make it `torch.ops.vllm.lora_select_add_routed`; harmless when called again."""
    if not hasattr(torch.ops.vllm, NAME):
        direct_register_custom_op(NAME, add_routed, ["y", "chosen", "votes", "shares"], _fake)

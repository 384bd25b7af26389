"""LAG of one projection as one operator of torch, for torch.compile and CUDA graphs: no shape depends on data, and
nothing waits for the device. Imported on CUDA only, since vLLM's Triton kernels are.

n library slots, rank r, T rows, L libraries of a virtual adapter at most.
"""

from __future__ import annotations

import torch
from vllm.distributed import tensor_model_parallel_all_reduce
from vllm.utils.torch_utils import direct_register_custom_op

from lora_select_vllm.kernels import choose, expand

NAME = "lora_select_add_routed"


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
    z = shrunk(x, a)
    # A copy, since the sum over ranks may work in place, and a rank's own b needs its own part.
    whole = tensor_model_parallel_all_reduce(z.clone()) if spread else z
    best = choose(whole, w, present, member, k, projection, observe, layer, chosen, votes, shares)
    expand(y, z, b[first:], best, offset)


def shrunk(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """z = A x of all library slots in float32, [T, n, r], for `x` [T, in] and `a` [n, r, in]."""
    flat = a.flatten(0, 1).T
    if x.is_cuda and x.dtype != torch.float32:
        z = torch.mm(x, flat, out_dtype=torch.float32)
    else:
        z = x.float() @ flat.float()
    return z.unflatten(1, a.shape[:2])


def _fake(*_: object) -> None: ...


def register() -> None:
    """Make it `torch.ops.vllm.lora_select_add_routed`; harmless when called again."""
    if not hasattr(torch.ops.vllm, NAME):
        direct_register_custom_op(NAME, add_routed, ["y", "chosen", "votes", "shares"], _fake)

"""LAG's kernels, compiled for GPUs that are not here; test_lag_gpu runs it, without the interpreter."""

from __future__ import annotations

import pytest
from triton import compile as compiled  # type: ignore[import-untyped]
from triton.backends import backends  # type: ignore[import-untyped]
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]
from triton.compiler import ASTSource  # type: ignore[import-untyped]

# vLLM's CPU build takes Triton on only where it finds a backend of this name; the compiler wants one for a GPU.
backends["cpu"] = backends["nvidia"]

from lora_select_vllm import kernels  # noqa: E402
from lora_select_vllm.spec import MOST_LIBRARIES  # noqa: E402

del backends["cpu"]

CHOOSE = {
    "z": "*fp32", "w": "*fp32", "present": "*i1", "member": "*i1", "k": "*i64", "projection": "*i1",
    "observe": "*i1", "layer": "*i64", "best": "*i32", "chosen": "*i64", "votes": "*u8", "shares": "*fp32",
    "rows": "i32", "slots": "i32", "rank": "i32", "layers": "i32",
}  # fmt: skip
EXPAND = {
    "z": "*fp32", "best": "*i32", "rows": "i32", "together": "i32", "slots": "i32", "rank": "i32", "outs": "i32",
    "y_row": "i32", "b_slot": "i32",
}  # fmt: skip
SHARED_MEMORY = 48 << 10
"""Bytes that every GPU gives to a program."""


CAPABILITIES = [80, 90, 120]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(("slots", "rank"), [(8, 16), (32, 64), (128, 64)])
def test_choosing(capability: int, slots: int, rank: int) -> None:
    sizes = {"LIBRARIES": MOST_LIBRARIES, "N": slots, "R": rank}
    assert shared_memory(kernels._choose, capability, CHOOSE, sizes) <= SHARED_MEMORY


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("weights", ["bf16", "fp16"])
@pytest.mark.parametrize("rank", [16, 64])
def test_expanding(capability: int, weights: str, rank: int) -> None:
    types = {"y": f"*{weights}", **EXPAND, "b": f"*{weights}"}
    sizes = {"LIBRARIES": MOST_LIBRARIES, "R": rank, "COLUMNS": min(256, kernels.TILE // rank)}
    assert shared_memory(kernels._expand, capability, types, sizes) <= SHARED_MEMORY


def shared_memory(kernel: object, capability: int, types: dict[str, str], fixed: dict[str, int]) -> int:
    """Bytes that a program takes, compiled down to the GPU's own code."""
    names = kernel.arg_names  # type: ignore[attr-defined]
    signature = {name: "constexpr" if name in fixed else types[name] for name in names}
    options = {"enable_fp_fusion": True}  # it warns where that is not said
    done = compiled(ASTSource(kernel, signature, fixed), target=GPUTarget("cuda", capability, 32), options=options)
    assert done.asm["cubin"]
    return int(done.metadata.shared)

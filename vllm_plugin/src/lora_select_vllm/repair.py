"""Base rows stay the base's in vLLM's CPU build below 0.33 (vllm#48421).

Its shrink operator picks each row's A by slot, and a row of the base has slot -1: in torch that is the last slot,
so an adapter that sits there is mixed into the base's answers, silently. With rows of the base set to zero after
the shrink, the expand adds zero to them.
"""

from __future__ import annotations

from typing import Any

import torch


def install() -> None:
    """Repair the operator where the build needs it; harmless when called again."""
    from vllm import __version__
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or tuple(map(int, __version__.split(".")[:2])) >= (0, 33):
        return
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    stock = lora_ops.bgmv_shrink
    if getattr(stock, "repaired", False):
        return

    def bgmv_shrink(
        inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: torch.Tensor, *scaling: Any
    ) -> None:
        """vLLM's, for `inputs` [rows, in], `weights` [slots, 1, r, in], `output` [rows, r], `slots` [rows]."""
        stock(inputs, weights, output, slots, *scaling)
        output.masked_fill_((slots < 0).unsqueeze(1), 0)

    bgmv_shrink.repaired = True  # type: ignore[attr-defined]
    # The prefill operators find it in their own module, the wrapper imported it into its.
    lora_ops.bgmv_shrink = bgmv_shrink
    punica_cpu.bgmv_shrink = bgmv_shrink

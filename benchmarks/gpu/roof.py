"""`python -m benchmarks.gpu.roof cuda`: what the device's memory and matrix units can do, as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

SIZES = {"cuda": (4 << 30, 8192), "cpu": (64 << 20, 256)}
"""Bytes of a copy, and the side of a square matrix."""

TIMES = 10


def measure(device: str) -> dict[str, Any]:
    """Copies count bytes read and bytes written; matrices are of random bfloat16 (float32 on a CPU)."""
    import torch

    size, side = SIZES[device]
    there = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    other = torch.empty_like(there)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    one, two = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    copied, multiplied = _seconds(lambda: other.copy_(there), wait), _seconds(lambda: one @ two, wait)
    found = {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU"}
    return found | {"bytes_per_s": 2 * size / copied, "flop_per_s": 2 * side**3 / multiplied}


def _seconds(work: Callable[[], Any], wait: Callable[[], None]) -> float:
    """Median of several, each timed alone, after three that warm up."""
    for _ in range(3):
        work()
    took = []
    for _ in range(TIMES):
        wait()
        began = time.perf_counter()
        work()
        wait()
        took.append(time.perf_counter() - began)
    return median(took)


def _nothing() -> None:
    """A CPU is done when it says so."""


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))

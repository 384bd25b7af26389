"""`python -m benchmarks.gpu.make FOLDER cuda`: the base first, so that engines can start, then the adapters."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.gpu.engines import adapter_names
from benchmarks.gpu.model import make_adapter, make_base
from benchmarks.gpu.plan import CPU, GPU
from benchmarks.gpu.setup import MADE

if __name__ == "__main__":
    folder, plan = Path(sys.argv[1]), CPU if sys.argv[2] == CPU.device else GPU
    make_base(folder / "base", plan.shape)
    (folder / MADE).touch()
    for seed, name in enumerate(adapter_names(plan)):
        make_adapter(folder / name, plan.shape, seed)

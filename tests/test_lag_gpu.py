"""LAG's CUDA path, without a GPU: lag_gpu needs Triton's interpreter from its process's start on, lag_compiled its
compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_under_tritons_interpreter() -> None:
    """All of lag_gpu; and that a start on CUDA says that it is unproven."""
    assert "LAG on CUDA is unproven" in passed("lag_gpu.py", TRITON_INTERPRET="1")


def test_kernels_compile_for_gpus_that_are_not_here() -> None:
    """All of lag_compiled."""
    assert "[100%]" in passed("lag_compiled.py")


def passed(checks: str, **environment: str) -> str:
    """What pytest prints, of these checks in a process of their own."""
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-o", "log_cli=1", "-o", "log_cli_level=WARNING",
            str(Path(__file__).with_name(checks)),
        ],
        env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr

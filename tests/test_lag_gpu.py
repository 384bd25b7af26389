"""LAG's CUDA path, without a GPU: see lag_gpu, which needs Triton's interpreter from its process's start on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_under_tritons_interpreter() -> None:
    """All of lag_gpu; and that a start on CUDA says that it is unproven."""
    checks = Path(__file__).with_name("lag_gpu.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "log_cli=1", "-o", "log_cli_level=WARNING", str(checks)],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LAG on CUDA is unproven" in done.stdout + done.stderr

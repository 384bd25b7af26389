"""LAG's CUDA path, without a GPU: lag_gpu needs Triton's interpreter from its process's start on, lag_compiled its
compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def begun() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Both at once: each needs one core."""
    processes = {
        "lag_gpu.py": begin("lag_gpu.py", TRITON_INTERPRET="1"),
        "lag_compiled.py": begin("lag_compiled.py"),
    }
    yield processes
    for one in processes.values():
        with one:  # closes its pipe, and waits
            one.kill()


def test_under_tritons_interpreter(begun: dict[str, subprocess.Popen[str]]) -> None:
    """All of lag_gpu; and that a start on CUDA says that it is unproven."""
    assert "LAG on CUDA is unproven" in passed(begun["lag_gpu.py"])


def test_kernels_compile_for_gpus_that_are_not_here(begun: dict[str, subprocess.Popen[str]]) -> None:
    """All of lag_compiled."""
    assert "[100%]" in passed(begun["lag_compiled.py"])


def begin(checks: str, **environment: str) -> subprocess.Popen[str]:
    """pytest, on these checks in a process of their own."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "-o", "log_cli=1", "-o", "log_cli_level=WARNING",
            str(Path(__file__).with_name(checks)),
        ],
        env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def passed(process: subprocess.Popen[str]) -> str:
    """What it printed."""
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return said

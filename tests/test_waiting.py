"""On a CPU, vLLM's processes wait for each other asleep (lora_select_vllm.waiting)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.processes import cpu_s
from tests.stack import Running


def test_the_engine_core_sleeps_while_a_worker_computes(running: Running) -> None:
    pids = [process(running, name) for name in (b"VLLM::EngineCore", b"VLLM::Worker")]
    before = [cpu_s([pid]) for pid in pids]
    running.client.completions.create(
        model="legal", prompt="A tenant", max_tokens=100, temperature=0, extra_body={"ignore_eos": True}
    )
    core, worker = (cpu_s([pid]) - was for pid, was in zip(pids, before, strict=True))
    assert worker > 0.1
    assert core < worker / 2, "it has not spun as long as the worker computed"


def process(running: Running, name: bytes) -> int:
    """One of the stack's, by its title."""
    (pid,) = [one for one in running.children() if Path(f"/proc/{one}/cmdline").read_bytes().startswith(name)]
    return pid

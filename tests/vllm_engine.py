"""Real vLLM on the demo base, without supervisor and router, and adapters for it that are made in no time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from adapters import load
from serve.life.api import EngineApi
from serve.preflight import preflight
from serve.process.procfs import members
from tests.conftest import ask
from tests.stack import ROOT, START_LIMIT_S, moved_stack, status

BASE = "demo-base"
SHAPES = {
    "self_attn.q_proj": (256, 256), "self_attn.k_proj": (256, 128), "self_attn.v_proj": (256, 128),
    "self_attn.o_proj": (256, 256), "mlp.gate_proj": (256, 1024), "mlp.up_proj": (256, 1024),
    "mlp.down_proj": (1024, 256),
}  # fmt: skip
"""Inputs and outputs of the demo base's linear modules, of which each of its LAYERS has one."""

LAYERS = 4
ATTENTION = tuple(SHAPES)[:4]


class Engine(EngineApi):
    """One that runs; its processes are one group."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(url)
        self.url, self._process, self._log = url, process, log

    def wait(self) -> Engine:
        """Until it can be used."""
        deadline = time.monotonic() + 2 * START_LIMIT_S  # two may be starting at once
        while status(f"{self.url}/health") != 200:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.25)
        return self

    def memory(self) -> int:
        """Bytes of its processes; an adapter that has the engine's dtype is mapped from its file, and counts."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in members(self._process.pid)]
        return sum(
            int(line.split()[1]) << 10 for text in statuses for line in text.splitlines() if "VmRSS" in line
        )

    def serve(self, adapter: str, path: str) -> None:
        """Load it, and let it be asked under its own name."""
        self.load(adapter, path)
        self.publish(adapter, adapter)

    def retire(self, adapter: str) -> None:
        """The opposite."""
        self.withdraw(adapter)
        self.unload(adapter)

    @contextlib.contextmanager
    def serving(self, paths: Mapping[str, str]) -> Iterator[None]:
        """Adapters that are up until the end of the block."""
        for adapter, path in paths.items():
            self.serve(adapter, path)
        try:
            yield
        finally:
            for adapter in paths:
                self.retire(adapter)

    def stock(self, what: str, name: str, path: str = "") -> None:
        """vLLM's own route to "load" or "unload"."""
        body = {"lora_name": name} | ({"lora_path": path} if path else {})
        answered, _, _ = ask("POST", f"{self.url}/v1/{what}_lora_adapter", body)
        assert answered == 200


@contextlib.contextmanager
def engine(
    folder: Path, slots: int, args: dict[str, Any], plugins: str | None = None, library: int | None = None
) -> Iterator[Engine]:
    """Starts at once, and ends with the block. `plugins` is VLLM_PLUGINS, None: our own; `library`: slots
    of one, for LAG; None: none."""
    subprocess.run([sys.executable, "-m", "demo", "build"], cwd=ROOT, check=True)
    data = moved_stack() | {"lag": None}
    data["engine"] |= {"max_loras": slots, "library_slots": library, "args": data["engine"]["args"] | args}
    # Others use this machine, too, and OpenMP threads that wait for a core spin.
    data["engine"]["env"] |= {"OMP_NUM_THREADS": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    file, log = folder / "adapters.yaml", folder / "engine.log"
    file.write_text(yaml.safe_dump(data))
    command = preflight(load(file)).command
    assert command
    env = os.environ | command.env | ({} if plugins is None else {"VLLM_PLUGINS": plugins})
    with log.open("w") as out:
        process = subprocess.Popen(
            command.argv, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield Engine(f"http://127.0.0.1:{data['engine']['port']}", process, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def make_adapter(
    folder: Path,
    seed: int,
    rank: int = 8,
    modules: Sequence[str] = ATTENTION,
    size: float = 0.1,
    layers: Sequence[int] = range(LAYERS),
) -> str:
    """Random weights: A of the usual size, B of `size`. Returns the folder, as vLLM wants it."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in layers:
        for module in modules:
            name = f"base_model.model.model.layers.{layer}.{module}"
            inputs, outputs = SHAPES[module]
            tensors[f"{name}.lora_A.weight"] = _normal(random, (rank, inputs), inputs**-0.5)
            tensors[f"{name}.lora_B.weight"] = _normal(random, (outputs, rank), size)
    described = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE,
        "r": rank, "lora_alpha": rank, "target_modules": [module.rpartition(".")[2] for module in modules],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(described))
    save_file(tensors, folder / "adapter_model.safetensors")
    return str(folder)


def _normal(
    random: np.random.Generator, shape: tuple[int, int], size: float
) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (random.standard_normal(shape) * size).astype(np.float32)

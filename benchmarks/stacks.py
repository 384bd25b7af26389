"""The demo's models on engines of this machine: the stacks as files, the commands, and when they are ready."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.calls import lists, until
from benchmarks.processes import BenchmarkError, Command, Fleet
from record.origin import ROOT

DEMO = ROOT / ".demo"
BASE = "demo-base"
TEMPLATE = ROOT / "demo" / "template.jinja"
READY_WITHIN_S = 600
"""Several engines boot at once, on two cores perhaps that others use as well: usually it is one minute or two."""

ARGS: dict[str, Any] = {
    "max-model-len": 512, "max-num-seqs": 72, "dtype": "float32", "enforce-eager": True,
    "enable-prefix-caching": False,
}  # fmt: skip
"""Of every engine, so that they differ in nothing but what is compared. A text that came before would need no
prefill again, one that is new would: nothing is kept."""

ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
PLAIN_ENV = {
    **ENV, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "",
}  # fmt: skip
"""What `serve` gives its engines, for those that it cannot start: it always turns LoRA on."""


@dataclass(frozen=True)
class Started:
    """A server, and the models that it has when it is ready."""

    name: str
    url: str
    models: tuple[str, ...]
    process: subprocess.Popen[bytes]


def see_demo() -> None:
    """Raises BenchmarkError when the models are not there."""
    if not (DEMO / "base" / "config.json").is_file():
        raise BenchmarkError("there are no demo models in .demo: run `python -m demo build`")


def plain_engine(fleet: Fleet, name: str, model: Path, port: int) -> Started:
    """vLLM without LoRA."""
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    argv += ["--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--chat-template", str(TEMPLATE), "--max-model-len", str(ARGS["max-model-len"])]
    argv += ["--max-num-seqs", str(ARGS["max-num-seqs"]), "--dtype", ARGS["dtype"], "--enforce-eager"]
    argv += ["--no-enable-prefix-caching"]
    return Started(name, f"http://127.0.0.1:{port}", (BASE,), fleet.start(name, Command(argv, PLAIN_ENV, ROOT)))


def adapter_folders(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The demo's adapters in turn, under these names: the same files, and to vLLM others."""
    own = sorted(path for path in (DEMO / "adapters").iterdir() if path.is_dir())
    folder.mkdir()
    found = {}
    for place, name in enumerate(names):
        files = next((path for path in own if path.name == name), own[place % len(own)])
        found[name] = folder / name
        found[name].symlink_to(files, target_is_directory=True)
    return found


def write_stack(
    file: Path, adapters: Mapping[str, Path], labels: Mapping[str, str], ports: tuple[int, int], **sections: Any
) -> Path:
    """An adapters.yaml, engine and router on these ports; `sections` are added, those of the engine to ours."""
    engine: dict[str, Any] = {"port": ports[0], "args": ARGS, "env": ENV}
    engine["args"] = ARGS | sections.get("engine", {}).get("args", {})
    stack = {
        "base": {"model": str(DEMO / "base"), "name": BASE, "chat_template": str(TEMPLATE)},
        "router": {"port": ports[1], "classifier": "embedding"},
        "adapters": {name: {"path": str(path), "label": labels[name]} for name, path in adapters.items()},
        **sections,
        "engine": engine | {key: value for key, value in sections.get("engine", {}).items() if key != "args"},
    }
    file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
    return file


def served_engine(fleet: Fleet, name: str, file: Path, models: Sequence[str]) -> Started:
    """`python -m serve engine`: vLLM with LoRA, and every adapter loaded and tested."""
    port = yaml.safe_load(file.read_text(encoding="utf-8"))["engine"]["port"]
    argv = (sys.executable, "-m", "serve", "engine", "--config", str(file), "--run-dir", str(file.with_suffix("")))
    process = fleet.start(name, Command(argv, {}, ROOT))
    return Started(name, f"http://127.0.0.1:{port}", (BASE, *models), process)


def started_router(fleet: Fleet, file: Path, models: Sequence[str]) -> Started:
    """`python -m router`, in front of the stack's engine."""
    port = yaml.safe_load(file.read_text(encoding="utf-8"))["router"]["port"]
    process = fleet.start("router", Command((sys.executable, "-m", "router", "--config", str(file)), {}, ROOT))
    return Started("router", f"http://127.0.0.1:{port}", ("auto", BASE, *models), process)


def wait_ready(fleet: Fleet, servers: Sequence[Started], within_s: float = READY_WITHIN_S) -> None:
    """Until each lists all of its models. Raises BenchmarkError."""
    for server in servers:

        def up(server: Started = server) -> bool:
            if server.process.poll() is not None:
                raise fleet.died(server.name, server.process)
            return lists(server.url, server.models)

        if not until(up, within_s):
            raise BenchmarkError(
                f"{server.name}: not ready within {within_s:.0f} s: {fleet.last_word(server.name)}"
            )


def demo_labels() -> dict[str, str]:
    """What the demo's stack says of its adapters."""
    stack = yaml.safe_load((ROOT / "demo" / "adapters.yaml").read_text(encoding="utf-8"))
    return {name: " ".join(adapter["label"].split()) for name, adapter in stack["adapters"].items()}

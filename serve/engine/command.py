"""From a stack to vLLM's command line and environment: pure, so that `check` shows exactly what `up` starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters import DATA_FREE, Stack
from serve.engine import memory
from serve.engine.base import dtype_of, saved_in
from serve.engine.machine import OURS, Build, Machine
from serve.engine.memory import Estimate, Room, room
from serve.engine.quantization import method
from serve.lint.library import members, spectral, takes_all, virtual

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


ADDITIONAL, PLUGIN = "additional-config", "lora_select"
"""vLLM's argument for plugins, and our part of it."""


@dataclass(frozen=True)
class Command:
    """What would be run, a line for each thing that was decided on the user's behalf, and the memory it needs."""

    argv: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...]
    room: Room
    estimate: Estimate | None = None


def engine_command(
    stack: Stack, build: Build, ranks: Mapping[str, int], machine: Machine, base: dict[str, Any] | None = None
) -> Command:
    """The engine's command. Adapters are not in it: they are loaded, one by one, when it is up.

    `ranks` has the rank of every adapter whose files are on this machine, `base` is the base's config.json.
    Raises ConfigError for arguments that contradict the stack.
    """
    _refuse_owned(stack)
    rooms = room(stack, ranks)
    found = memory.estimate(stack, base, rooms, build, machine) if base else None
    notes = [f"engine: vLLM {build.version}, {'CPU' if build.cpu else 'CUDA'} build"]
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(stack.base_ref())]
    argv += ["--served-model-name", stack.base.name, "--host", "127.0.0.1", "--port", str(stack.engine.port)]
    argv += ["--enable-lora"]
    derived = _adapters(stack, rooms) + _library(stack, rooms, build)
    derived += _cpu(stack, machine, found) if build.cpu else _cuda(stack)
    for flag, value, why in derived:
        argv += [flag, value] if flag else []
        notes.append(f"engine: {' '.join(filter(None, (flag, value)))}: {why}")
    if template := stack.chat_template():
        argv += ["--chat-template", str(template)]
    own = stack.engine_args | ({} if rooms.library == 0 else {ADDITIONAL: _additional(stack, rooms.library)})
    argv += [word for key, value in own.items() for word in _flag(key, value)]
    notes += _told(stack, base)
    env, reasons = _environment(stack, build, machine)
    return Command(tuple(argv), env, (*notes, *reasons), rooms, found)


Derived = list[tuple[str, str, str]]
"""Flag ("" for something that vLLM decides), value, and why."""


def _adapters(stack: Stack, rooms: Room) -> Derived:
    count = len(stack.adapters)
    asked = stack.engine.max_loras is not None
    more = "one more, for an update beside the old version"
    if virtual(stack) > 1:
        scoring = f", one of them for router.classifier: {DATA_FREE}" if spectral(stack) else ""
        more = f"{virtual(stack)} virtual models{scoring}"
    slots = "engine.max_loras" if asked else f"{count} adapters and {more}"
    if rooms.slots < count:
        slots += f"; the {count} adapters take turns in them"
    derived = [("--max-loras", str(rooms.slots), slots)]
    if "max-cpu-loras" not in stack.engine_args:
        derived.append(("--max-cpu-loras", str(rooms.host), "adapters in host memory, so that none is read twice"))
    if "max-lora-rank" not in stack.engine_args:
        derived.append(("--max-lora-rank", str(rooms.rank), f"holds {', '.join(stack.adapters)}"))
    return derived


def _library(stack: Stack, rooms: Room, build: Build) -> Derived:
    """Places that no adapter outside the libraries takes; without them LAG is off."""
    if not rooms.library:
        return []
    inside = ", ".join(members(stack)) or "what a reload brings"
    more = " and one more, for an update beside the old version"
    more += ", and one to add" if takes_all(stack) else ""
    why = "engine.library_slots" if stack.engine.library_slots else f"{inside}{more}"
    derived = [("", f"{rooms.library} library slots ({ADDITIONAL})", why)]
    if not build.cpu:
        derived.append(("", "LAG", "unproven: it has run on a GPU for minutes only"))
    return derived


def _additional(stack: Stack, slots: int) -> dict[str, Any]:
    """--additional-config, with what the stack itself passes in it."""
    given = stack.engine_args.get(ADDITIONAL) or {}
    if not isinstance(given, dict):
        raise stack.error(
            f"engine.args.{ADDITIONAL}", f"must be a mapping, to which {PLUGIN} is added (is {given!r})"
        )
    if PLUGIN in given:
        raise stack.error(f"engine.args.{ADDITIONAL}.{PLUGIN}", "decided by engine.library_slots")
    return given | {PLUGIN: {"library_slots": slots}}


def _cpu(stack: Stack, machine: Machine, found: Estimate | None) -> Derived:
    """vLLM's own cache on a CPU is 92% of the machine's memory, and it does not start where that is not free."""
    chosen = {"kv-cache-memory-bytes", "gpu-memory-utilization"} & set(stack.engine_args)
    if found is None or chosen or "VLLM_CPU_KVCACHE_SPACE" in stack.engine.env:
        return []
    there = f"{machine.free / memory.GIB:.3g} of {machine.memory / memory.GIB:.3g} GiB are free"
    why = f"KV cache of {found.tokens:,} tokens; {there}"
    return [("--kv-cache-memory-bytes", str(found.kv), why)]


def _cuda(stack: Stack) -> Derived:
    derived = []
    if "gpu-memory-utilization" not in stack.engine_args:
        derived.append(
            ("", "GPU memory", f"vLLM's own share, {memory.GPU_SHARE:.0%}: what adapters leave is KV cache")
        )
    if "enable-prefix-caching" not in stack.engine_args:
        derived.append(("", "prefix caching", "on, vLLM's own default; an adapter shares none with the base"))
    return derived


def _told(stack: Stack, base: dict[str, Any] | None) -> list[str]:
    """What vLLM reads from the base's config."""
    told = []
    if base and "dtype" not in stack.engine_args:
        saved = saved_in(base) or "a type it does not name"
        told.append(f"engine: {dtype_of(stack, base)}: the base is saved in {saved}")
    quantized, key = method(stack, base)
    if quantized:
        told.append(f"engine: the base is quantised, {quantized} ({key}); adapters are not")
    return told


def _environment(stack: Stack, build: Build, machine: Machine) -> tuple[dict[str, str], list[str]]:
    why: list[str] = []
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if build.cpu:
        threads = stack.engine.env.get("OMP_NUM_THREADS", str(machine.cores))
        env |= {"OMP_NUM_THREADS": threads, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        why.append(f"engine: OMP_NUM_THREADS={threads}, not bound to cores")
    references = [stack.base_ref(), *(stack.adapter_ref(name) for name in stack.adapters)]
    if all(reference.folder for reference in references):
        env["HF_HUB_OFFLINE"] = "1"
        why.append("engine: every path is a folder here, so the hub is never asked")
    given = stack.engine.env.get("VLLM_PLUGINS")
    others = machine.plugins if given is None else filter(None, map(str.strip, given.split(",")))
    plugins = ",".join(dict.fromkeys((*OURS, *others)))
    why.append(f"engine: plugins {plugins}")
    if machine.has_ours and build.cpu:
        wrong = ": vLLM's own gives the base's rows the last slot's adapter" if build.adapts_base else ""
        why.append(f"engine: adapters are computed by LoRA-Select's wrapper, with rows grouped by slot{wrong}")
    if not machine.has_ours:
        why.append("engine: vllm_plugin/ is not installed, without which no adapter is loaded: run `make install`")
    return env | dict(stack.engine.env) | {"VLLM_PLUGINS": plugins}, why


def _refuse_owned(stack: Stack) -> None:
    for key in stack.engine_args:
        if key in OWNED:
            raise stack.error(f"engine.args.{key}", f"decided by {OWNED[key]}")


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

"""The engines, all open at once: what each is started with, and until when each is up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.calls import lists
from benchmarks.gpu.model import RANK, TARGETS
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.say import say
from benchmarks.processes import Command, Fleet, Ports, end
from record.origin import ROOT

BASE = "base"
"""What the served base is called."""

PLAIN, LORA, LAG, MANY = "plain", "lora", "lag", "many"
"""Without LoRA; with it, as many slots as adapters in use; with LAG; with slots for all, only where they are."""

PLUGIN = "lora_select"
HOST_PLACES = 192
LONGEST, BATCHED = 4096, 4096
"""Tokens of a request, and of one step."""

BESIDE = 8
"""Requests more than a load's, for questions beside it; vLLM captures graphs in steps of 8."""

TOLD_EVERY_S = 15.0
STARTING = "it was still starting"
NEEDED = (PLAIN, LORA)
"""Without these there is little to compare; for the others there is a grace."""

GRACE_S = 60.0


@dataclass(frozen=True)
class Engine:
    """One process. `roles`: what it stands for; `names`: its adapters; `virtual`: (size, k) of its LAG models."""

    name: str
    roles: tuple[str, ...]
    names: tuple[str, ...] = ()
    slots: int = 0
    targets: tuple[str, ...] = ()
    library: int = 0
    virtual: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """What it lists when it is up."""
        return (BASE, *self.names, *self.virtual)


def adapter_names(plan: Plan) -> tuple[str, ...]:
    """Of all that are made."""
    return tuple(map(adapter_name, range(plan.most)))


def adapter_name(number: int) -> str:
    """What it is called, and its folder."""
    return f"a{number:03d}"


def virtual_names(plan: Plan) -> dict[str, tuple[int, int]]:
    """The model "lag", and those of other libraries, with their size and k."""
    return {LAG: (plan.library, plan.k)} | {f"{LAG}-{size}-{k}": (size, k) for size, k in plan.lags}


def engines(plan: Plan) -> tuple[Engine, ...]:
    """Four on a GPU; on a CPU, where only the way is tried, one in all roles."""
    names, virtual = adapter_names(plan), virtual_names(plan)
    if plan.device == "cpu":
        slots = plan.many + len(virtual)
        return (Engine("engine", (PLAIN, LORA, LAG, MANY), names, slots, library=plan.library, virtual=virtual),)
    return (
        Engine(PLAIN, (PLAIN,)),
        Engine(LORA, (LORA,), names[: max(plan.active, *plan.cliff)], plan.slots),
        Engine(LAG, (LAG,), names[:1], len(virtual) + 1, library=plan.library, virtual=virtual),
        Engine(MANY, (MANY,), names[: max(plan.counts)], plan.many, TARGETS),
    )


def argv(engine: Engine, plan: Plan, models: Path, port: int, more: Sequence[str] = ()) -> list[str]:
    """vLLM's command line. `models` holds `base`, and adapters by their names."""
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(models / "base")]
    words += ["--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy"]
    words += ["--max-model-len", str(LONGEST), "--max-num-seqs", str(plan.concurrency + BESIDE)]
    words += ["--max-num-batched-tokens", str(BATCHED), "--no-enable-prefix-caching"]
    words += ["--kv-cache-memory-bytes", str(plan.kv_bytes), "--disable-uvicorn-access-log"]
    if plan.device == "cpu":
        words += ["--enforce-eager"]
    else:
        # The cache's size is given: vLLM's own measuring would take other engines' memory for its own.
        words += [
            "--gpu-memory-utilization",
            "0.1",
            "--max-cudagraph-capture-size",
            str(plan.concurrency + BESIDE),
        ]
    if engine.slots:
        words += ["--enable-lora", "--max-loras", str(engine.slots), "--max-lora-rank", str(RANK)]
        words += ["--max-cpu-loras", str(HOST_PLACES), "--lora-modules", *_modules(engine, models)]
    if engine.targets:
        words += ["--lora-target-modules", *engine.targets]
    if engine.library:
        words += ["--additional-config", json.dumps({PLUGIN: {"library_slots": engine.library}})]
    return [*words, *more]


def _modules(engine: Engine, models: Path) -> list[str]:
    """Real ones, and virtual ones, whose path says of what they choose."""
    told = [json.dumps({"name": name, "path": str(models / name)}) for name in engine.names]
    if not engine.virtual:
        return told
    from lora_select_vllm.spec import virtual_path

    # The library has slots of its own, and ids that no request for a single adapter has.
    numbers = range(engine.library)
    library = [(f"m{number}", 1000 + number, str(models / adapter_name(number))) for number in numbers]
    return told + [
        json.dumps({"name": name, "path": virtual_path([library[:size]], k)})
        for name, (size, k) in engine.virtual.items()
    ]


def environment(engine: Engine, plan: Plan) -> dict[str, str]:
    """What its process has beside ours."""
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    env["VLLM_PLUGINS"] = PLUGIN if engine.library else ""
    if plan.device == "cpu":
        env |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return env


@dataclass
class Running:
    """An engine's process. `boot_s`: how long it took to be up; `why`: it is not, in one line."""

    engine: Engine
    url: str
    argv: Sequence[str]
    process: subprocess.Popen[Any]
    began: float
    boot_s: float | None = None
    why: str = STARTING

    @property
    def up(self) -> bool:
        """It answers."""
        return self.boot_s is not None and not self.why

    def look(self, fleet: Fleet) -> bool:
        """Whether it is known by now: up, or ended."""
        if self.why not in ("", STARTING):
            return True
        if self.process.poll() is not None:
            self.why = str(fleet.died(self.engine.name, self.process))
        elif not self.why:
            return True
        elif lists(self.url, self.engine.models):
            self.boot_s, self.why = time.monotonic() - self.began, ""
        else:
            return False
        say(f"engine {self.engine.name}: {self.why or f'up after {self.boot_s:.0f} s'}")
        return True

    def close(self) -> None:
        """End it; its memory is free a moment later."""
        if self.up or self.why == STARTING:
            self.why = "it was closed to make room"
            end(self.process)


def start(fleet: Fleet, plan: Plan, models: Path, ports: Ports, more: Sequence[str]) -> list[Running]:
    """All at once: their compiling is on CPU cores, of which there are enough."""
    running = []
    for engine in engines(plan):
        port = ports.take()
        words = argv(engine, plan, models, port, more)
        process = fleet.start(engine.name, Command(words, environment(engine, plan), ROOT))
        running.append(Running(engine, f"http://127.0.0.1:{port}", words[2:], process, time.monotonic()))
    return running


def wait(fleet: Fleet, running: Sequence[Running], until: float) -> None:
    """Until each is up or has ended, or the time is over; says how it goes.

    Once those that all is compared to are there, the others have a grace; whoever comes later is found later.
    """
    told_at = time.monotonic()
    while waiting := [one for one in running if not one.look(fleet)]:
        if time.monotonic() > until:
            break
        if not any(role in NEEDED for one in waiting for role in one.engine.roles):
            until = min(until, time.monotonic() + GRACE_S)
        if time.monotonic() - told_at > TOLD_EVERY_S:
            told_at = time.monotonic()
            say(f"waiting for {', '.join(one.engine.name for one in waiting)}")
        time.sleep(0.3)


def told(running: Iterable[Running]) -> list[dict[str, Any]]:
    """For the result."""
    return [
        {
            "name": one.engine.name,
            "roles": list(one.engine.roles),
            "slots": one.engine.slots,
            "library_slots": one.engine.library,
            "adapters": len(one.engine.names),
            "boot_s": one.boot_s,
            "why": one.why,
            "arguments": _told_words(one.argv),
        }
        for one in running
    ]


def _told_words(words: Sequence[str]) -> list[str]:
    """Without the adapters, which are many, and without this machine's folders."""
    return [Path(word).name if word.startswith("/") else word for word in words if not word.startswith('{"name"')]

"""From nothing to a stand: the model's files, the device's bounds, engines, routers, who asks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines import adapter_names, start, wait
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.routers import settle, start_routers, subjects_of
from benchmarks.gpu.say import say
from benchmarks.gpu.stand import Asker, Stand
from benchmarks.gpu.texts import Texts
from benchmarks.notebook import Notebook
from benchmarks.processes import BenchmarkError, Command, Fleet, Ports
from record.origin import ROOT

MADE_WITHIN_S, BOUNDS_WITHIN_S, SETTLED_WITHIN_S = 120.0, 90.0, 30.0
MADE = "made"
"""In the models' folder, when the base is complete; adapters follow while engines load it."""


@contextmanager
def standing(plan: Plan, folder: Path, logs: Path, more: Sequence[str], until: float) -> Iterator[Stand]:
    """All is up, or said to be not. Raises BenchmarkError where no engine is."""
    with Fleet(logs) as fleet:
        models, ports = folder / "models", Ports()
        bounds = fleet.start("bounds", _command("benchmarks.gpu.roof", plan.device), talks=True)
        making = fleet.start("models", _command("benchmarks.gpu.make", str(models), plan.device))
        _see(fleet, "models", making, (models / MADE).exists, MADE_WITHIN_S)
        say(f"the base is made ({plan.shape.parameters / 1e6:,.0f} M parameters)")
        running = start(fleet, plan, models, ports, more)
        roles = {role: one for one in running for role in one.engine.roles}
        routers = start_routers(fleet, plan, roles, folder, ports)
        asker, notebook = Asker(fleet), Notebook(fleet)
        texts = Texts(models / "base" / "tokenizer.json", subjects_of(plan))
        roof = _bounds(fleet, bounds)
        stand = Stand(plan, fleet, models, roles, routers, asker, notebook, texts, adapter_names(plan), roof)
        wait(fleet, running, min(until, time.monotonic() + plan.boot_s))
        settle(fleet, [one for (role, _), one in routers.items() if roles[role].up], SETTLED_WITHIN_S)
        _learn(stand)
        if making.wait(MADE_WITHIN_S):
            raise fleet.died("models", making)
        if not any(one.up for one in running):
            raise BenchmarkError(f"no engine is up: {running[0].why}")
        yield stand
        for one in running:  # all at once; else each would be waited for in turn
            one.process.terminate()


def _learn(stand: Stand) -> None:
    try:
        stand.learn()
    except (BenchmarkError, OSError, HTTPException) as error:
        say(f"the router has not learnt any text: {error}")


def _bounds(fleet: Fleet, process: Any) -> Mapping[str, Any]:
    try:
        out, _ = process.communicate(timeout=BOUNDS_WITHIN_S)
        found: dict[str, Any] = json.loads(out)
    except Exception as error:  # whatever it is, the blocks that need no bounds go on
        say(f"the device's bounds: {type(error).__name__}: see {fleet.log('bounds')}")
        return {}
    say(f"{found['device']}: {found['bytes_per_s'] / 1e12:.3g} TB/s, {found['flop_per_s'] / 1e12:.3g} TFLOP/s")
    return found


def _see(fleet: Fleet, name: str, process: Any, true: Any, within_s: float) -> None:
    until = time.monotonic() + within_s
    while not true():
        if process.poll() not in (None, 0):
            raise fleet.died(name, process)
        if time.monotonic() > until:
            raise BenchmarkError(f"{name}: not done within {within_s:.0f} s")
        time.sleep(0.1)


def _command(module: str, *arguments: str) -> Command:
    return Command((sys.executable, "-m", module, *arguments), {}, ROOT)

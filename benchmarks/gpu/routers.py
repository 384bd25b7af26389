"""Routers of ours before the engines, and the adapters' subjects, which their labels name."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.calls import lists
from benchmarks.gpu.engines import BASE, LORA, MANY, STARTING, Running, adapter_names
from benchmarks.gpu.model import spread, subjects
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.say import say
from benchmarks.processes import Command, Fleet, Ports
from record.origin import ROOT

THRESHOLD = 0.2
"""With 128 adapters the right one is seldom as probable as 0.5."""


@dataclass
class Router:
    """For the first `adapters` of its engine's. `why`: it is not up, in one line."""

    name: str
    adapters: int
    url: str
    process: subprocess.Popen[Any]
    why: str = STARTING
    admin_key: str = ""

    def look(self, fleet: Fleet) -> bool:
        """Whether it is known by now: up, which takes an engine that is, or ended."""
        if self.why != STARTING:
            return True
        if self.process.poll() is not None:
            self.why = str(fleet.died(self.name, self.process))
        elif lists(self.url, ("auto", BASE)):
            self.why = ""
        else:
            return False
        say(f"{self.name}: {self.why or 'up'}")
        return True


def subjects_of(plan: Plan) -> dict[str, tuple[str, ...]]:
    """By adapter: the same ones at the start of any number of adapters."""
    return dict(zip(adapter_names(plan), spread(subjects(), plan.most), strict=True))


def start_routers(fleet: Fleet, plan: Plan, roles: Mapping[str, Running], folder: Path, ports: Ports) -> dict[
    tuple[str, int], Router
]:  # fmt: skip
    """One before engine `lora`, and one for each number of adapters before engine `many`."""
    wanted = [(LORA, plan.active), *((MANY, count) for count in plan.counts)]
    labels = {
        name: ", ".join(part.replace(",", " and") for part in told) for name, told in subjects_of(plan).items()
    }
    started = {}
    for role, count in dict.fromkeys(wanted):
        port, name = ports.take(), f"router-{role}-{count}"
        names = adapter_names(plan)[:count]
        stack = {
            "base": {"model": "random/base", "name": BASE},
            "engine": {"url": roles[role].url},
            "router": {
                "port": port, "classifier": "embedding", "threshold": THRESHOLD, "workers": plan.router_workers,
            },
            "adapters": {one: {"path": f"random/{one}", "label": labels[one]} for one in names},
        }  # fmt: skip
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
        command = Command((sys.executable, "-m", "router", "--config", str(file)), {}, ROOT)
        started[role, count] = Router(name, count, f"http://127.0.0.1:{port}", fleet.start(name, command))
        if len(started) == 1:
            time.sleep(0.5)  # the first one may have to export the classifier, and the others wait for it
    return started


def settle(fleet: Fleet, routers: Sequence[Router], within_s: float) -> None:
    """Until each is up or has ended, or the time is over."""
    until = time.monotonic() + within_s
    while time.monotonic() < until and not all(one.look(fleet) for one in routers):
        time.sleep(0.2)

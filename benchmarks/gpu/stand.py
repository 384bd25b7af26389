"""What stands while blocks are measured: engines, routers before them, who asks, and what is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.calls import call
from benchmarks.gpu.engines import BASE, LORA, Running
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.routers import Router
from benchmarks.gpu.texts import Texts
from benchmarks.notebook import Notebook
from benchmarks.processes import BenchmarkError, Fleet, cpu_s, tree
from benchmarks.throughput.load import Driver, Load, Seen, Target
from benchmarks.throughput.rounds import AUTO

ANSWERED_WITHIN_S, IMPORTED_WITHIN_S = 75.0, 240.0
"""A load, whatever it is; and before the first one, vLLM's client."""

LEARNT_BY = 3
"""Times the workers: so often a text is asked, until nearly every worker has seen it."""


class Asker:
    """vLLM's load client; a process that has hung or died is replaced."""

    def __init__(self, fleet: Fleet, driver: Driver | None = None) -> None:
        """`driver`: one that is there already."""
        self._fleet = fleet
        self._driver, self._more_s = driver or Driver(fleet), IMPORTED_WITHIN_S

    def run(self, target: Target, load: Load) -> tuple[Seen, float]:
        """What it saw, and how many cores it used itself. Raises BenchmarkError where there is no answer."""
        pid = self._driver.process.pid
        try:
            before = cpu_s([pid])
            seen = self._driver.run(target, load, ANSWERED_WITHIN_S + self._more_s)
            self._more_s = 0.0
            return seen, (cpu_s([pid]) - before) / max(seen.took_s, 1e-9)
        except (BenchmarkError, OSError) as error:
            if not self._driver.process.alive:
                self._driver, self._more_s = Driver(self._fleet), IMPORTED_WITHIN_S
            raise BenchmarkError(f"{target.name}: {error}") from None


@dataclass
class Stand:
    """All of it. `roles`: an engine for each; `names`: of its adapters; `base`: what is served without any."""

    plan: Plan
    fleet: Fleet
    models: Path
    roles: Mapping[str, Running]
    routers: Mapping[tuple[str, int], Router]
    asker: Asker
    notebook: Notebook
    texts: Texts
    names: tuple[str, ...]
    roof: Mapping[str, Any] = field(default_factory=dict)
    base: str = BASE
    known: Load | None = None  # what the router before engine `lora` has been asked already

    def target(self, name: str, role: str, model: str | None) -> Target:
        """At an engine; its url is empty where that is not up."""
        running = self.roles[role]
        return Target(name, running.url if running.up else "", model)

    def through(self, name: str, role: str, adapters: int) -> Target:
        """`auto` at the router that knows so many adapters."""
        router = self.routers.get((role, adapters))
        if router is None or router.why or not self.roles[role].up:
            return Target(name, "", AUTO)
        return Target(name, router.url, AUTO, router.admin_key)

    def look(self) -> None:
        """What was still starting may be up by now."""
        for running in self.roles.values():
            running.look(self.fleet)
        for router in self.routers.values():
            router.look(self.fleet)

    def server_s(self, target: Target) -> float:
        """CPU seconds of what answers at the target's address, so far: a router with its workers, or vLLM's front
        end; 0 where it is gone."""
        routers = [tree(one.process.pid) for one in self.routers.values() if one.url == target.url]
        engines = [[one.process.pid] for one in self.roles.values() if one.url == target.url]
        try:
            return cpu_s((routers + engines)[0])
        except OSError:
            return 0.0

    def load(self, adapters: int, concurrency: int, requests: int, prompt: int, output: int) -> Load:
        """New texts, uniform over the first `adapters`."""
        asked = self.texts.fresh(self.names[:adapters], requests, prompt)
        return Load(asked, concurrency, len(asked), output)

    def learn(self) -> None:
        """Texts that every worker of the router before engine `lora` has classified. Raises BenchmarkError."""
        plan = self.plan
        router = self.routers[LORA, plan.active]
        if router.why:
            return
        load = self.load(plan.active, plan.concurrency, plan.concurrency, plan.prompt, plan.output)
        for _ in range(1 if plan.router_workers == 1 else LEARNT_BY * plan.router_workers):
            for one in load.asked:  # each on a connection of its own: any worker may take it
                status, text = call(router.url, "/route", {"text": one.text}, timeout_s=30)
                if status != 200 or json.loads(text)["model"] != one.model:
                    raise BenchmarkError(f"/route: not {one.model}: {status}: {text[:200]}")
        self.known = replace(load, requests=plan.concurrency * plan.waves)

"""Section `boot`: `python -m serve` from nothing to its first answer, a router and a page of their own beside it,
and adapters that come and go."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import stacks
from benchmarks.calls import call, lists
from benchmarks.load import CHAT
from benchmarks.overhead.router import ADMIN_KEY
from benchmarks.processes import BenchmarkError, Command, Fleet, Ports
from benchmarks.startup.plan import Plan
from benchmarks.startup.say import say
from benchmarks.stats import Spread
from record.origin import ROOT

EXTRA = "extra"
"""The adapter that is added: the files of one that is there, to vLLM another one."""

ENGINE, ADAPTERS, ROUTER, PAGE = "engine serves the base", "all adapters serve", "router is ready", "page is there"
ROUTER_ALONE, PAGE_ALONE = "router alone", "page alone"
ADD, REMOVE = "add an adapter live", "remove it"
STEPS = (ENGINE, ADAPTERS, ROUTER, PAGE, ROUTER_ALONE, PAGE_ALONE, ADD, REMOVE)
EVERY_S = 0.05

Took = dict[str, list[float]]


def section(plan: Plan, folder: Path) -> dict[str, Any]:
    """Seconds, medians over boots. Raises BenchmarkError."""
    stacks.see_demo()
    took: Took = defaultdict(list)
    for turn in range(plan.boots):
        say(f"boot {turn + 1} of {plan.boots}")
        own = folder / str(turn)
        own.mkdir()
        with Fleet(own) as fleet:
            _boot(fleet, own, plan, took)
    return {"seconds": {name: asdict(Spread.of(took[name])) for name in STEPS}, "adapters": _names()}


def _boot(fleet: Fleet, folder: Path, plan: Plan, took: Took) -> None:
    ports = Ports()
    engine, router, page = ports.take(), ports.take(), ports.take()
    file = _stack(folder / "stack.yaml", engine, router, page)
    argv = ("serve", "--config", str(file), "--run-dir", str(folder / "run"))
    _time(fleet, "stack", argv, took, {
        ENGINE: lambda: lists(_url(engine), [stacks.BASE]),
        ADAPTERS: lambda: lists(_url(engine), _names()),
        ROUTER: lambda: _ok(router, "/ready"),
        PAGE: lambda: _ok(page, "/"),
    })  # fmt: skip
    other, another = ports.take(), ports.take()
    beside = _stack(folder / "beside.yaml", engine, other, another)
    _time(fleet, "router", ("router", "--config", str(beside)), took, {ROUTER_ALONE: lambda: _ok(other, "/ready")})
    _time(fleet, "ui", ("ui", "--config", str(beside)), took, {PAGE_ALONE: lambda: _ok(another, "/")})
    for number in range(plan.live):
        live(router, folder / "roots", f"{EXTRA}-{number}", ADMIN_KEY, took)


def _stack(file: Path, engine: int, router: int, page: int) -> Path:
    """The demo's, on these ports, with a folder from which adapters may be added."""
    roots = file.parent / "roots"
    roots.mkdir(exist_ok=True)
    adapters = {name: stacks.DEMO / "adapters" / name for name in _names()}
    return stacks.write_stack(
        file, adapters, stacks.demo_labels(), (engine, router), engine={"port": engine, "roots": [str(roots)]},
        router={
            "port": router, "classifier": "embedding",
            "admin_key": hashlib.sha256(ADMIN_KEY.encode()).hexdigest(),
        },
        ui={"port": page},
    )  # fmt: skip


def _time(
    fleet: Fleet, name: str, argv: tuple[str, ...], took: Took, probes: Mapping[str, Callable[[], bool]]
) -> None:
    """From the command until each probe says yes. Raises BenchmarkError."""
    began = time.monotonic()
    process = fleet.start(name, Command((sys.executable, "-m", *argv), {}, ROOT))
    waiting = dict(probes)
    while waiting:
        for what in [one for one, yes in waiting.items() if yes()]:
            took[what].append(time.monotonic() - began)
            del waiting[what]
        _see_alive(fleet, name, process)
        if time.monotonic() - began > stacks.READY_WITHIN_S:
            raise BenchmarkError(f"{name}: not within {stacks.READY_WITHIN_S} s: {', '.join(waiting)}")
        time.sleep(EVERY_S)


def _see_alive(fleet: Fleet, name: str, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise fleet.died(name, process)


def live(router: int, roots: Path, name: str, key: str, took: Took) -> None:
    """Add an adapter over HTTP, ask it, and remove it. Raises BenchmarkError."""
    first = _names()[0]
    shutil.copytree(stacks.DEMO / "adapters" / first, roots / name)
    wish = {"name": name, "path": str(roots / name), "label": "gardens, plants, lawns"}
    url = f"http://127.0.0.1:{router}"
    _timed(ADD, took, lambda: call(url, "/admin/adapters", wish, stacks.READY_WITHIN_S, key))
    chat = {"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "When are roses cut?"}]}
    status, said = call(url, CHAT, chat)
    if status != 200:
        raise BenchmarkError(f"{name}: added, but it does not answer: {status}: {said[:200]}")
    _timed(REMOVE, took, lambda: call(url, f"/admin/adapters/{name}", key=key, method="DELETE"))


def _timed(what: str, took: Took, act: Callable[[], tuple[int, str]]) -> None:
    began = time.monotonic()
    status, said = act()
    if status != 200:
        raise BenchmarkError(f"{what}: {status}: {said[:200]}")
    took[what].append(time.monotonic() - began)


def _names() -> list[str]:
    return list(stacks.demo_labels())


def _ok(port: int, path: str) -> bool:
    try:
        return call(f"http://127.0.0.1:{port}", path, timeout_s=5)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"

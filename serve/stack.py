"""Which processes a stack needs, in which order they end, and when each of them can be used."""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapters import MANAGER, ConfigError, Label, Stack, check_port, labels, socket_file
from serve.engine.command import Command
from serve.preflight import preflight
from serve.process.alive import answers, engine_alive, every_s
from serve.process.child import Service

PROBE_TIMEOUT_S = 1.0
GRACE_S = 3.0
ROUTER_GRACE_S = 2.0
"""Beyond the router's own time to drain, so that it ends by itself."""


@dataclass(frozen=True)
class Plan:
    """What would be started: services and the lines that explain them; `engine` is None for a remote one.

    `broken` has a line for each adapter that will not be served, though all else can start.
    """

    services: tuple[Service, ...]
    engine: Command | None
    notes: tuple[str, ...]
    broken: tuple[str, ...] = ()


def plan(stack: Stack, run_dir: Path) -> Plan:
    """Check the stack and lay out its processes; starts nothing.

    Raises ConfigError, one line per finding, for anything that would make the start fail.
    """
    checked = preflight(stack.expanded())
    engine, notes = checked.command, checked.notes
    notes += tuple(f"{name}: label from {found.source}: {found.text}" for name, found in _derived(stack))
    services = [_service(stack, run_dir, name) for name in ("router", "ui")]
    if engine:
        services.insert(0, _engine_service(stack, engine, run_dir))
    return Plan(tuple(services), engine, notes, checked.broken)


def _derived(stack: Stack) -> list[tuple[str, Label]]:
    """Labels that the stack's own file does not give. Raises ConfigError where none is to be found."""
    found = labels(stack)
    return [(name, found[name]) for name, adapter in stack.adapters.items() if adapter.label is None]


def check_ports(stack: Stack) -> None:
    """Raises ConfigError when a port that the stack would listen on is taken."""
    wanted = [
        ("router.port", stack.router.host, stack.router.port),
        ("ui.port", stack.ui.host, stack.ui.port),
    ]
    if stack.engine.url is None:
        wanted.append(("engine.port", "127.0.0.1", stack.engine.port))
    taken = []
    for key, host, port in wanted:
        try:
            check_port(stack, key, host, port)
        except ConfigError as error:
            taken.append(str(error))
    if taken:
        raise ConfigError("\n".join(taken))


def _engine_service(stack: Stack, command: Command, run_dir: Path) -> Service:
    probe = _engine_probe(stack.engine_url, stack.base.name)
    url = f"{stack.engine_url} (loopback only)"
    limit = stack.engine.liveness_s
    alive = engine_alive(stack.engine_url, stack.base.name, limit)
    return Service(
        "engine", command.argv, command.env, run_dir / "engine.log", probe, url,
        stop_rank=1, alive=alive, alive_every_s=every_s(limit), alive_s=limit,
    )  # fmt: skip


def _service(stack: Stack, run_dir: Path, name: str) -> Service:
    argv = (sys.executable, "-m", name, "--config", str(stack.file))
    url = stack.router_url if name == "router" else stack.ui_url
    path, alive = ("/ready", "/health") if name == "router" else ("/", "/")
    # The page asks the router on this machine, whatever proxy the environment names.
    direct = ",".join(filter(None, ("127.0.0.1,localhost", os.environ.get("NO_PROXY"))))
    env = {"PYTHONUNBUFFERED": "1", "NO_PROXY": direct, "no_proxy": direct}
    if name == "router":
        env[MANAGER] = str(socket_file(run_dir))
    grace = stack.router.drain_s + ROUTER_GRACE_S if name == "router" else GRACE_S
    log, probe = run_dir / f"{name}.log", _http_probe(url + path)
    return Service(name, argv, env, log, probe, url, grace_s=grace, alive=answers(url + alive))


def _engine_probe(url: str, base: str) -> Callable[[], str]:
    """Adapters come after it is ready: the manager loads them."""

    def look() -> str:
        _get(f"{url}/health")
        served = {model["id"] for model in json.loads(_get(f"{url}/v1/models"))["data"]}
        return "" if base in served else f"it serves {', '.join(sorted(served))}, not {base}"

    return lambda: _told(look)


def _http_probe(url: str) -> Callable[[], str]:
    def look() -> str:
        _get(url)
        return ""

    return lambda: _told(look)


def _told(look: Callable[[], str]) -> str:
    """A probe never raises: whatever a process answers while it starts or dies is something still missing."""
    try:
        return look()
    except urllib.error.HTTPError as error:
        with error:
            return _problem(error.read()) or f"it answers with status {error.code}"
    except (OSError, http.client.HTTPException):
        return "no answer yet"
    except (ValueError, KeyError, TypeError) as error:
        return f"it answers nonsense: {error!r}"


def _problem(body: bytes) -> str:
    """The router's own word for what it waits for."""
    try:
        return str(json.loads(body)["problem"])
    except (ValueError, KeyError, TypeError):
        return ""


def _get(url: str) -> bytes:
    """From a process of ours, so never through a proxy that the environment names."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=PROBE_TIMEOUT_S) as answer:
        return bytes(answer.read())

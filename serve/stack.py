"""Which processes a stack needs, in which order they end, and when each of them can be used."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import ConfigError, Stack
from serve.engine import Command, engine_command, installed_build, usable_cores
from serve.lint import Finding, Report, lint
from serve.process import Service

PROBE_TIMEOUT_S = 1.5


@dataclass(frozen=True)
class Plan:
    """What would be started: services and the lines that explain them; `engine` is None for a remote one."""

    services: tuple[Service, ...]
    engine: Command | None
    notes: tuple[str, ...]


def plan(stack: Stack, run_dir: Path) -> Plan:
    """Check the stack and lay out its processes; starts nothing.

    Raises ConfigError, one line per finding, for anything that would make the start fail.
    """
    engine, notes = _engine(stack)
    services = [_service(stack, run_dir, name) for name in ("router", "ui")]
    if engine:
        services.insert(0, _engine_service(stack, engine, run_dir))
    return Plan(tuple(services), engine, notes)


def check_ports(stack: Stack) -> None:
    """Raises ConfigError when a port that the stack would listen on is taken."""
    wanted = [
        ("router.port", stack.router.host, stack.router.port),
        ("ui.port", stack.ui.host, stack.ui.port),
    ]
    if stack.engine.url is None:
        wanted.append(("engine.port", "127.0.0.1", stack.engine.port))
    for key, host, port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise stack.error(
                    key, f"{port} on {host}: {error.strerror}; end what uses it, or set another port"
                ) from None


def _engine(stack: Stack) -> tuple[Command | None, tuple[str, ...]]:
    if stack.engine.url:
        return None, (f"engine: none started, {stack.engine.url} is used (engine.url)",)
    report = lint(stack)
    if report.errors:
        raise ConfigError("\n".join(_line(stack, finding) for finding in report.errors))
    return _command(stack, report)


def _command(stack: Stack, report: Report) -> tuple[Command, tuple[str, ...]]:
    try:
        build = installed_build()
    except RuntimeError as error:
        raise ConfigError(str(error)) from None
    command = engine_command(stack, build, report.ranks, usable_cores())
    return command, (*(_line(stack, finding) for finding in report.findings), *command.notes)


def _line(stack: Stack, finding: Finding) -> str:
    return str(stack.error(finding.key, finding.text))


def _engine_service(stack: Stack, command: Command, run_dir: Path) -> Service:
    names = {stack.base.name, *stack.adapters}
    probe = _engine_probe(stack.engine_url, names)
    url = f"{stack.engine_url} (loopback only)"
    return Service("engine", command.argv, command.env, run_dir / "engine.log", probe, url, stop_rank=1)


def _service(stack: Stack, run_dir: Path, name: str) -> Service:
    argv = (sys.executable, "-m", name, "--config", str(stack.file))
    host = "127.0.0.1" if stack.ui.host == "0.0.0.0" else stack.ui.host
    url = stack.router_url if name == "router" else f"http://{host}:{stack.ui.port}"
    path = "/ready" if name == "router" else "/"
    return Service(name, argv, {"PYTHONUNBUFFERED": "1"}, run_dir / f"{name}.log", _http_probe(url + path), url)


def _engine_probe(url: str, names: set[str]) -> Callable[[], str]:
    def probe() -> str:
        if missing := _http_probe(f"{url}/health")():
            return missing
        served = {model["id"] for model in _get_json(f"{url}/v1/models")["data"]}
        return f"adapters {', '.join(sorted(names - served))}" if names - served else ""

    return probe


def _http_probe(url: str) -> Callable[[], str]:
    def probe() -> str:
        try:
            with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S):
                return ""
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answers with status {error.code}"
        except OSError:
            return "no answer yet"

    return probe


def _get_json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S) as answer:
        return dict(json.load(answer))

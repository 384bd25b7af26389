"""Other proxies that do the same work: how each is found, configured by its own documentation, and started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.overhead.router import KEY
from benchmarks.processes import Command
from benchmarks.stub import MODELS
from record.origin import checked_out

BASE = MODELS[0]

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 128k;
  keepalive_requests 1000000000;
  upstream engine {{
    server 127.0.0.1:{engine};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


LITELLM_ENV = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""It would ask the network for prices, which it has at hand."""


class NotInstalled(Exception):
    """A peer that this machine does not have, and where it was looked for."""


@dataclass(frozen=True)
class Place:
    """Where a peer listens, what stands behind it, and a folder for its files."""

    port: int
    metrics_port: int  # for a peer that shows its metrics on a port of their own
    engine_port: int
    folder: Path
    environments: Path  # one virtual environment for each of them


@dataclass(frozen=True)
class Peer:
    """A command, and what was found."""

    command: Command
    version: str


def nginx(place: Place) -> Peer:
    """One worker, connections kept alive on both sides, nothing buffered. Never the system's service."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NotInstalled("no nginx on the path")
    config = place.folder / "nginx.conf"
    settings = NGINX.format(folder=place.folder, port=place.port, engine=place.engine_port)
    config.write_text(settings, encoding="utf-8")
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    version = re.search(r"nginx/(\S+)", said)
    argv = (program, "-e", "stderr", "-p", str(place.folder), "-c", str(config))
    return Peer(Command(argv, {}, place.folder), version[1] if version else "unknown")


def vllm_router(place: Place) -> Peer:
    """The Rust one from PyPI, one worker thread (tokio's own setting)."""
    folder = place.environments / "vllm-router" / "bin"
    version = version_of(folder, "vllm-router")
    argv = (
        str(folder / "vllm-router"), "--host", "127.0.0.1", "--port", str(place.port),
        "--worker-urls", f"http://127.0.0.1:{place.engine_port}", "--policy", "round_robin",
        "--worker-startup-check-interval", "1", "--prometheus-port", str(place.metrics_port),
        "--log-level", "warning",
    )  # fmt: skip
    return Peer(Command(argv, {"TOKIO_WORKER_THREADS": "1"}, place.folder), version)


def production_stack(place: Place) -> Peer:
    """vllm-project/production-stack's router; its environment must be able to import vllm_router.app."""
    folder = place.environments / "production-stack" / "bin"
    version = version_of(folder, "vllm-router", module="vllm_router.app")
    argv = (
        str(folder / "python"), "-W", "ignore", "-m", "vllm_router.app", "--host", "127.0.0.1",
        "--port", str(place.port), "--service-discovery", "static",
        "--static-backends", f"http://127.0.0.1:{place.engine_port}", "--static-models", BASE,
        "--routing-logic", "roundrobin", "--log-level", "warning",
    )  # fmt: skip
    return Peer(Command(argv, {}, place.folder), version)


def litellm(place: Place) -> Peer:
    """LiteLLM's proxy as its page on production asks for: one worker, a master key, errors only in the log."""
    folder = place.environments / "litellm" / "bin"
    version = version_of(folder, "litellm")
    parameters = {
        "model": f"hosted_vllm/{BASE}",
        "api_base": f"http://127.0.0.1:{place.engine_port}/v1",
        "api_key": "none",
    }
    config = place.folder / "litellm.yaml"
    settings = {
        "model_list": [{"model_name": BASE, "litellm_params": parameters}],
        "litellm_settings": {"set_verbose": False, "request_timeout": 600},
        "general_settings": {"master_key": KEY},
    }
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    argv = (
        str(folder / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(place.port),
        "--num_workers", "1",
    )  # fmt: skip
    return Peer(Command(argv, LITELLM_ENV, place.folder), version)


PEERS: dict[str, Callable[[Place], Peer]] = {
    "nginx": nginx,
    "vllm-router": vllm_router,
    "production-stack": production_stack,
    "litellm": litellm,
}
"""By the names that the result calls them. Each raises NotInstalled."""


def version_of(folder: Path, package: str, module: str = "") -> str:
    """`module`: what must be importable, where the package may be a mere checkout on the path: then its commit."""
    python = folder / "python"
    if not python.exists():
        raise NotInstalled(f"no {folder.parent.name}/bin/python among the peers")
    version = _version_in(python, package)
    if module and version is None:
        script = f"import importlib.util; print(importlib.util.find_spec('{module}').origin)"
        said = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False).stdout.strip()
        version = f"commit {checked_out(Path(said).parent)}" if said else None
    if version is None:
        raise NotInstalled(f"{folder.parent.name}/bin/python has no {package}")
    return version


def _version_in(python: Path, package: str) -> str | None:
    """Of a package in another environment; None where that Python or the package is missing."""
    script = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    try:
        done = subprocess.run([python, "-c", script, package], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None

"""The whole stack as a person runs it: `python -m serve` on the demo models, on free ports."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import openai
import yaml

from adapters import Stack, load
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
DEMO = ROOT / ".demo"
START_LIMIT_S = 180
ADMIN_KEY = "the tests' own"


@dataclass
class Running:
    """A stack that is up, and the supervisor that holds it."""

    stack: Stack
    supervisor: subprocess.Popen[str]
    log: Path
    run_dir: Path
    roots: Path

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.stack.router_url}/v1", api_key="none", max_retries=0)

    @property
    def page_url(self) -> str:
        return f"http://127.0.0.1:{self.stack.ui.port}"

    def children(self) -> list[int]:
        """Every process below the supervisor."""
        found, todo = [], [self.supervisor.pid]
        while todo:
            for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                below = [int(pid) for pid in task.read_text().split()]
                found += below
                todo += below
        return found


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def wait_for(what: str, url: str, wanted: int, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while (last := status(url)) != wanted:
        assert time.monotonic() < deadline, f"{what}: still {last} after {limit_s} s"
        time.sleep(0.25)


@contextlib.contextmanager
def started(folder: Path, run: str = "test", **sections: Any) -> Iterator[Running]:
    """Up until the end of the block, and ended as a person would end it: with Ctrl-C.

    `sections` are added to the demo's; `run` names the run folder, of which each stack has its own.
    """
    subprocess.run([sys.executable, "-m", "demo", "build"], cwd=ROOT, check=True)
    file, roots, run_dir = folder / "adapters.yaml", folder / "roots", ROOT / ".run" / run
    roots.mkdir()
    data = moved_stack() | sections
    data["engine"]["roots"] = [str(roots)]
    data["router"]["admin_key"] = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    stack, log = load(file), folder / "serve.log"
    command = [sys.executable, "-m", "serve", "--config", str(file), "--run-dir", str(run_dir)]
    with log.open("w") as out:
        supervisor = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True)
    up = Running(stack, supervisor, log, run_dir, roots)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while status(f"{stack.router_url}/ready") != 200:
            assert supervisor.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.25)
        yield up
        up.client.close()
    finally:
        supervisor.send_signal(signal.SIGINT)
        supervisor.wait(30)


def moved_stack() -> dict[str, Any]:
    """demo/adapters.yaml on free ports, with paths that hold from any folder."""
    data: dict[str, Any] = yaml.safe_load((ROOT / "demo" / "adapters.yaml").read_text())
    data["base"] |= {"model": str(DEMO / "base"), "chat_template": str(ROOT / "demo" / "template.jinja")}
    for name, adapter in data["adapters"].items():
        adapter["path"] = str(DEMO / "adapters" / name)
    data["engine"]["port"], data["router"]["port"] = free_port(), free_port()
    data["router"]["decision_log"] = "decisions.db"
    data["ui"] = {"port": free_port()}
    return data

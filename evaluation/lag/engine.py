"""A task's stack on real vLLM, with a LAG model for each setting that is compared."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm  # type: ignore[import-untyped]

from adapters import Stack, labels
from evaluation.routing.rows import DataError
from record.origin import ROOT

START_LIMIT_S = 1800
"""Each adapter is tested when it is loaded: seconds, on a CPU."""

ANSWER_LIMIT_S = 300
END_LIMIT_S = 60
SCORES = ("norm", "projection")
KS = (1, 2, 3, 5, 8, 12)


class EngineError(DataError):
    """The engine did not start, or refused. One line."""


class Api:
    """The engine's own port."""

    def __init__(self, url: str) -> None:
        self._url = url
        # On this machine, whatever proxy the environment names.
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """The decoded answer. Raises OSError while nobody listens."""
        with self._direct.open(self._url + path, timeout=ANSWER_LIMIT_S) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded answer. Raises EngineError."""
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)
        try:
            with self._direct.open(request, timeout=ANSWER_LIMIT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise EngineError(f"{path}: the engine says {error.code}: {said[:300]}") from None
        except OSError as error:
            raise EngineError(f"{path}: the engine does not answer: {error}") from None

    def names(self) -> set[str]:
        """What can be asked for; nothing while it starts."""
        try:
            return {str(model["id"]) for model in self.get("/v1/models")["data"]}
        except OSError:
            return set()


def lag_models(adapters: int) -> dict[str, dict[str, Any]]:
    """LAG over all adapters, by name: every k with either score. With k = 1 the score decides nothing: Arrow."""
    ks = [k for k in KS if k < adapters] + [adapters]
    return {
        f"lag-{score}-{k}": {"library": "all", "k": k, "score": score}
        for score in SCORES
        for k in ks
        if k > 1 or score == SCORES[0]
    }


@contextmanager
def serving(stack: Stack, folder: Path) -> Iterator[Api]:
    """`python -m serve engine` until the end of the block; its log is in `folder`. Raises EngineError."""
    port = _free_port()
    file, log = folder / "adapters.yaml", folder / "engine.log"
    virtual = lag_models(len(stack.adapters))
    file.write_text(yaml.safe_dump(_written(stack, port) | {"lag": virtual}, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "serve", "engine", "--config", str(file), "--run-dir", str(folder / "run")]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    api = Api(f"http://127.0.0.1:{port}")
    try:
        _wait(process, api, {*stack.adapters, *virtual}, log)
        yield api
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _written(stack: Stack, port: int) -> dict[str, Any]:
    """The stack with paths that hold from any folder. One slot: all adapters are the library's."""
    texts = labels(stack)
    template = stack.chat_template()
    base = {"model": str(stack.base_ref()), "name": stack.base.name}
    return {
        "base": base | ({"chat_template": str(template)} if template else {}),
        "engine": {"port": port, "max_loras": 1, "args": dict(stack.engine.args), "env": dict(stack.engine.env)},
        "adapters": {
            name: {"path": str(stack.adapter_ref(name)), "label": texts[name].text} for name in stack.adapters
        },
    }


def _wait(process: subprocess.Popen[bytes], api: Api, wanted: set[str], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    with tqdm(total=len(wanted), desc="engine", unit="model", disable=None) as bar:
        while missing := wanted - api.names():
            bar.update(len(wanted) - len(missing) - bar.n)
            if process.poll() is not None:
                raise EngineError(f"the engine ended with {process.returncode}: {_last_line(log)}")
            if time.monotonic() > deadline:
                raise EngineError(f"not served after {START_LIMIT_S} s: {', '.join(sorted(missing))}; see {log}")
            time.sleep(1)
        bar.update(len(wanted) - bar.n)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

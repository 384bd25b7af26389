"""What several test files share."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser

from adapters import Stack, load
from benchmarks.processes import Fleet
from benchmarks.throughput.load import Driver
from router.app import create_app
from router.classify import load_classifiers
from router.upstream import HttpUpstream
from tests.servers import FakeEngine, free_port, serving
from tests.stack import Running, started

LABELS = {
    "legal": "law, legal rights, courts and lawsuits, contracts, landlords and tenants",
    "medical": "medicine, health, symptoms and pain, diseases, treatments",
    "finance": "finance, banking, loans and mortgages, investing, taxes",
}
LEGAL = "My landlord wants to evict me before the lease ends. What are my rights?"
GENERAL = "Which planet has the most moons, and who found the first of them?"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that end the shared stack come last, in their own order."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole stack, real vLLM included; booted once, at the first test that asks for it."""
    with started(tmp_path_factory.mktemp("stack")) as up:
        yield up


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """vLLM's load client, which takes longer to import than all that tests ask of it."""
    with Fleet(tmp_path_factory.mktemp("driver")) as fleet:
        yield Driver(fleet)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Of each module its own: while one runs, its thread has an event loop, and no other can be started."""
    from tests.browser import browsing

    with browsing() as running:
        yield running


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For torch: two threads that spin for each other are ten times slower when something else wants the core, and
    a sum over another number of threads rounds differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Wire:
    """A router in front of a fake engine."""

    url: str
    engine: FakeEngine
    stack: Stack

    def post(
        self, path: str = "/v1/chat/completions", body: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON body (None where it is not JSON) and lower-case headers; a name's `_` is sent as `-`."""
        return ask("POST", self.url + path, body, **headers)

    def get(self, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """The same."""
        return ask("GET", self.url + path, **headers)


@pytest.fixture(scope="module")  # it asks its engine every second: other modules count sockets
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """The real router with the real MiniLM; only the engine behind it is a fake, on a real port."""
    with wired(tmp_path_factory.mktemp("wire"), max_body_mb=0.5, engine_wait_s=0.3) as one:
        yield one


@pytest.fixture
def wiring(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Wire]]:
    """`with wiring(keys={...}) as wire:` is a router of its own, with these keys of `router`."""
    return lambda **settings: wired(tmp_path, **settings)


@contextlib.contextmanager
def wired(
    folder: Path, adapters: dict[str, dict[str, Any]] | None = None, lag: Any = None, **router: Any
) -> Iterator[Wire]:
    """A router over a fake engine; `adapters` adds keys to those of the stack, or adapters to it."""
    engine = FakeEngine(["base", *LABELS, *(name for name in adapters or {} if name not in LABELS), *(lag or {})])
    with serving(engine) as engine_url:
        stack = load(write_stack(folder, engine_url, adapters, lag, **router))
        app = create_app(stack, load_classifiers(stack), HttpUpstream(stack.engine_url))
        with serving(app, stack.router.port) as url:
            wait_ready(url)
            yield Wire(url, engine, stack)


def write_stack(
    folder: Path,
    engine_url: str,
    adapters: dict[str, dict[str, Any]] | None = None,
    lag: Any = None,
    **router: Any,
) -> Path:
    """A stack in front of a running engine."""
    file = folder / "adapters.yaml"
    named = {name: {"path": f"some/{name}", "label": label} for name, label in LABELS.items()}
    for name, keys in (adapters or {}).items():
        named[name] = {"path": f"some/{name}", **named.get(name, {}), **keys}
    stack = {
        "base": {"model": "some/base", "name": "base"},
        "engine": {"url": engine_url},
        "router": {"port": free_port(), **router},
        "adapters": named,
        "lag": lag,
    }
    file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
    return file


def wait_ready(url: str) -> None:
    """Until the router's engine can be used."""
    deadline = time.monotonic() + 10
    while ask("GET", f"{url}/ready")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON body (None where it is not JSON) and lower-case headers; a name's `_` is sent as `-`."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = {"content-type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status, raw, got = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            status, raw, got = error.code, error.read(), error.headers
    try:
        parsed = json.loads(raw)
    except ValueError:
        parsed = None
    return status, parsed, {key.lower(): value for key, value in got.items()}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat request to `auto`."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}]} | fields

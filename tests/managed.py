"""A router whose adapters come and go, for the page's tests: real router and manager; the engine is a fake."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import Stack, load, socket_file
from router.app import create_app
from router.classify import load_classifiers
from router.manager import Manager as Door
from router.upstream import HttpUpstream
from serve.life.control import Control
from serve.life.loader import Loaded
from serve.life.manager import Manager
from serve.life.prove import Proof
from tests.conftest import Wire, wait_ready, write_stack
from tests.servers import FakeEngine, serving
from tests.test_manager import Scripted

KEY = "only for this test"
ROOTS = "some/guest"
LONGEST_S = 30


class Shelf(Scripted):
    """Loads what it is asked for into a fake engine, and says where it is; loads and tests wait for `go`."""

    max_rank = 16

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__()
        self._engine = engine
        self.places: dict[str, dict[str, Any]] = {}
        self.go = threading.Event()
        self.go.set()

    def load(self, stack: Stack, name: str, known: str, beside: Sequence[str], proven: str) -> Loaded:
        self.go.wait(LONGEST_S)
        loaded = super().load(stack, name, known, beside, proven)
        where = {"slot": len(self.places) + 1, "host": True, "pinned": False, "requests": 0}
        self.places[f"{name}@{loaded.version}"] = where
        return Loaded(loaded.version, 8, self.proof, size_bytes=1_234_567)

    def test(self, stack: Stack, name: str, version: str, beside: Sequence[str]) -> Proof:
        self.go.wait(LONGEST_S)
        return super().test(stack, name, version, beside)

    def publish(self, name: str, version: str) -> None:
        super().publish(name, version)
        self._engine.models = [*(one for one in self._engine.models if one != name), name]

    def withdraw(self, name: str) -> None:
        super().withdraw(name)
        self._engine.models = [one for one in self._engine.models if one != name]

    def unload(self, name: str, version: str) -> None:
        super().unload(name, version)
        self.places.pop(f"{name}@{version}", None)

    def held(self) -> dict[str, Any]:
        return self.places


@dataclass(frozen=True)
class Managed(Wire):
    """The manager's engine is `shelf`, the router's is `engine`."""

    shelf: Shelf
    manager: Manager
    door: str
    router: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self) -> None:
        """A router that has counted nothing yet."""
        upstream = HttpUpstream(self.stack.engine_url)
        app = create_app(self.stack, load_classifiers(self.stack), upstream, Door(self.door))
        self.router.enter_context(serving(app, self.stack.router.port))
        wait_ready(self.url)

    def stop(self) -> None:
        """Nobody answers at its address then."""
        self.router.close()


@contextlib.contextmanager
def managed(folder: Path, admin_key: str | None = KEY) -> Iterator[Managed]:
    """All is up; nothing may be added but from `some/guest`."""
    engine = FakeEngine(["base"])
    with contextlib.ExitStack() as ends:
        engine_url = ends.enter_context(serving(engine))
        digest = hashlib.sha256(admin_key.encode()).hexdigest() if admin_key else None
        file = write_stack(folder, engine_url, admin_key=digest)
        file.write_text(file.read_text().replace("engine:\n", f"engine:\n  roots: [{ROOTS}]\n"))
        stack, shelf = load(file), Shelf(engine)
        manager = Manager(stack, shelf, lambda _: None)
        ends.callback(manager.close)
        control = Control(socket_file(folder), manager)
        ends.callback(control.close)
        manager.engine_ready().result(10)
        up = Managed(stack.router_url, engine, stack, shelf, manager, str(control.file))
        ends.callback(up.stop)
        up.start()
        yield up

"""Faults in the life of adapters that no real engine has on demand: the real manager over a scripted engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters import Adapter, Stack, load
from serve.life.api import EngineError
from serve.life.loader import Loaded, Recipe, Refused, Unknown
from serve.life.manager import Manager
from serve.life.prove import Proof
from tests.conftest import LABELS, write_stack

GUEST = Adapter(path="some/guest", label="gardens")


class Scripted:
    """Loads whatever it is asked for, but for what `faults` says of a name; tells what it has done."""

    keeps = True
    max_rank: int | None = None

    def __init__(self) -> None:
        self.faults: dict[str, Callable[[], None]] = {}
        self.done: list[str] = []
        self.version = 1
        self.proof = Proof(differs=3.0, mixed=1e-6, base_mixed=2e-6)
        self.busy = threading.Event()  # set: whatever is unloaded still answers somebody
        self.kept: set[str] = set()

    up_now = True

    def up(self, _: str) -> bool:
        return self.up_now

    def load(self, _: Stack, name: str, known: str, __: Sequence[str], proven: str) -> Loaded:
        self.faults.get(name, lambda: None)()
        version = proven or str(self.version)
        if version != known:
            self.done.append(f"load {name}@{version}")
        return Loaded(version)

    def test(self, _: Stack, name: str, version: str, __: Sequence[str]) -> Proof:
        self.done.append(f"test {name}@{version}")
        self.faults.get(name, lambda: None)()
        return self.proof

    def compose(self, name: str, recipe: Recipe, known: str) -> str:
        raise NotImplementedError  # tests/test_libraries.py has them

    def publish(self, name: str, version: str) -> None:
        self.done.append(f"publish {name}@{version}")

    def withdraw(self, name: str) -> None:
        self.done.append(f"withdraw {name}")

    def unload(self, name: str, version: str) -> None:
        if self.busy.is_set():
            raise EngineError(409, "it answers somebody")
        self.done.append(f"unload {name}@{version}")

    def held(self) -> dict[str, Any]:
        return {}

    def sweep(self, used: set[str]) -> None:
        self.kept = used


def raises(error: Exception) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@pytest.fixture
def manager(engine: Scripted, tmp_path: Path) -> Iterator[Manager]:
    stack = load(write_stack(tmp_path, "http://127.0.0.1:1"))
    one = Manager(stack, engine, lambda _: None)
    yield one
    one.close()


def states(manager: Manager) -> dict[str, str]:
    return {one["name"]: str(one["state"]) for one in manager.listed()["adapters"]}


def settled(manager: Manager) -> bool:
    return bool(manager.listed()["settled"])


def test_an_unforeseen_error_breaks_one_adapter_and_holds_up_no_other(manager: Manager, engine: Scripted) -> None:
    engine.faults["legal"] = raises(RuntimeError("the hub is odd today"))
    manager.engine_ready().result(10)
    assert states(manager) == {"legal": "broken", "medical": "serving", "finance": "serving"}
    assert manager.listed()["adapters"][0]["reason"] == "the hub is odd today"
    assert settled(manager)


def test_an_adapter_that_ends_the_engine_is_left_out_after_the_second_time(
    manager: Manager, engine: Scripted
) -> None:
    def dies() -> None:
        manager.engine_lost()
        raise EngineError(0, "the engine does not answer")

    engine.faults["medical"] = dies
    for _ in range(2):
        manager.engine_ready().result(10)
        assert not settled(manager)
    manager.engine_ready().result(10)
    assert settled(manager)
    assert states(manager) == {"legal": "serving", "medical": "broken", "finance": "serving"}
    assert "python -m serve add medical tries again" in manager.listed()["adapters"][1]["reason"]
    del engine.faults["medical"]
    manager.add("medical", manager.stack.adapters["medical"]).result(10)
    assert states(manager)["medical"] == "serving"


def test_a_start_of_an_engine_that_has_died_meanwhile_is_overlooked(manager: Manager, engine: Scripted) -> None:
    go = threading.Event()

    def waits() -> None:
        go.wait(10)

    engine.faults["guest"] = waits
    adding = manager.add("guest", GUEST)
    stale = manager.engine_ready()
    manager.engine_lost()
    go.set()
    adding.result(10)
    stale.result(10)
    assert not settled(manager)
    manager.engine_ready().result(10)
    assert states(manager) == dict.fromkeys((*LABELS, "guest"), "serving")


def test_nobody_waits_for_an_engine_that_somebody_else_has_not_started(manager: Manager, engine: Scripted) -> None:
    engine.up_now = False
    manager.engine_ready().result(10)
    assert not settled(manager)
    manager.add("guest", GUEST).result(10)
    engine.up_now = True
    deadline = time.monotonic() + 10
    while not settled(manager):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert states(manager) == dict.fromkeys((*LABELS, "guest"), "serving")


def test_an_engine_that_restarts_gets_the_files_that_were_proven(manager: Manager, engine: Scripted) -> None:
    manager.engine_ready().result(10)
    engine.version = 2  # somebody is writing into the folders
    manager.engine_lost()
    assert set(states(manager).values()) == {"configured"}
    manager.engine_ready().result(10)
    assert {one["version"] for one in manager.listed()["adapters"]} == {"1"}
    assert engine.kept == {"legal@1", "medical@1", "finance@1"}


def test_an_update_answers_while_the_old_version_drains(manager: Manager, engine: Scripted) -> None:
    manager.engine_ready().result(10)
    engine.busy.set()
    engine.version = 2
    manager.add("legal", manager.stack.adapters["legal"]).result(10)
    assert manager.listed()["adapters"][0]["version"] == "2"
    engine.version = 1  # and back, while the first is still draining: it must not be unloaded
    manager.add("legal", manager.stack.adapters["legal"]).result(10)
    engine.busy.clear()
    gone = manager.remove("legal")
    gone.result(10)
    assert engine.done[-1] == "unload legal@1"
    assert engine.done.count("unload legal@1") == 1
    assert "legal" not in states(manager)


def test_of_a_refused_update_nothing_stays(manager: Manager, engine: Scripted) -> None:
    manager.engine_ready().result(10)
    engine.faults["legal@v2"] = raises(Refused("it does nothing"))
    with pytest.raises(Refused, match="it does nothing"):
        manager.add("legal", Adapter(path="some/legal", label="law", versions={"v1": 9, "v2": 1})).result(10)
    assert "versions" not in manager.known("legal")
    assert states(manager).get("legal") == "serving"
    deadline = time.monotonic() + 10
    while "unload legal@v1@1" not in engine.done:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(states(manager)) == ["finance", "legal", "medical"]
    assert "unload legal@1" not in engine.done


def test_a_removal_waits_for_the_routers_that_live(manager: Manager, engine: Scripted) -> None:
    manager.engine_ready().result(10)
    told = manager.changes(-1, "router")
    withdrawn = []

    def router() -> None:
        news = manager.changes(told["generation"], "router")
        withdrawn.append("withdraw legal" in engine.done)
        while "legal" in news["up"]:
            news = manager.changes(news["generation"], "router")
            withdrawn.append("withdraw legal" in engine.done)
        manager.changes(news["generation"], "router")

    asking = threading.Thread(target=router, daemon=True)
    asking.start()
    manager.remove("legal").result(10)
    assert withdrawn
    assert not any(withdrawn)


def test_what_only_a_start_reads_is_told_and_not_taken(manager: Manager) -> None:
    manager.engine_ready().result(10)
    file, before = manager.stack.file, manager.stack
    file.write_text(file.read_text().replace("name: base", "name: other"))
    assert manager.reload().result(10) == ["base: differs, and is read when the stack is started again"]
    assert manager.stack.base == before.base


def test_the_base_takes_no_adapters_name(manager: Manager) -> None:
    with pytest.raises(Refused, match='the name "base" is taken'):
        manager.add("base", GUEST).result(10)


def test_a_self_test_on_demand_tells_what_it_finds_and_changes_nothing_else(
    manager: Manager, engine: Scripted
) -> None:
    manager.engine_ready().result(10)
    manager.test("legal").result(10)
    before = manager.listed()["adapters"][0]
    assert (before["proof"]["differs"], before["reason"], engine.done[-1]) == (3.0, "", "test legal@1")
    engine.proof = Proof(differs=0.0, mixed=0.0, base_mixed=0.0, problem="it does nothing")
    manager.test("legal").result(10)
    legal = manager.listed()["adapters"][0]
    assert (legal["state"], legal["reason"]) == ("serving", "its last self-test failed: it does nothing")
    assert "legal" in manager.changes(-1, "test")["up"]
    with pytest.raises(Unknown, match='there is no adapter "nobody"'):
        manager.test("nobody").result(10)


def test_what_does_not_serve_is_not_tested(manager: Manager, engine: Scripted) -> None:
    engine.faults["legal"] = raises(Refused("rank 64"))
    manager.engine_ready().result(10)
    with pytest.raises(Refused, match="legal does not serve"):
        manager.test("legal").result(10)


def test_an_engine_that_dies_in_a_self_test_is_not_said_to_serve(manager: Manager, engine: Scripted) -> None:
    manager.engine_ready().result(10)
    engine.faults["legal"] = manager.engine_lost
    manager.test("legal").result(10)
    assert states(manager)["legal"] == "configured"

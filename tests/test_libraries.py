"""Virtual adapters follow their members: the real manager, and an engine without weights on a real port."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from adapters import Adapter, load
from serve.life.loader import Refused
from serve.life.manager import Manager
from serve.life.own import OwnEngine
from serve.life.remote import RemoteEngine
from tests.adapter_files import write_adapter, write_stack
from tests.plugin_engine import PluginEngine
from tests.servers import serving

ALL = {"library": "all"}


@dataclass
class Life:
    """A manager over an engine that is up."""

    manager: Manager
    engine: PluginEngine
    folder: Path
    said: list[str]

    def lag(self, name: str = "lag") -> dict[str, Any]:
        """What the list says of a model."""
        return next(one for one in self.manager.listed()["lag"] if one["name"] == name)

    def members(self, name: str = "lag") -> list[list[str]]:
        """Those of what answers under that name, by the engine, without versions."""
        libraries = self.engine.loaded[self.engine.names[name]]["libraries"]
        return [[member.rpartition("@")[0] for member in library] for library in libraries]

    def add(self, name: str, **keys: Any) -> None:
        """A new adapter, or other weights for one."""
        if not (self.folder / name).exists():
            write_adapter(self.folder / name)
        self.manager.add(name, Adapter(path=f"./{name}", label=name, **keys)).result(20)

    def update(self, name: str, alpha: int = 32) -> None:
        """Other weights."""
        write_adapter(self.folder / name, {"lora_alpha": alpha})
        self.add(name)

    def remove(self, name: str) -> None:
        self.manager.remove(name).result(20)

    def reload(self, **sections: Any) -> list[str]:
        """What an edit of the file does."""
        file = self.folder / "adapters.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | sections))
        return self.manager.reload().result(20)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def living(folder: Path, lag: dict[str, Any], engine: PluginEngine | None = None) -> Iterator[Life]:
    engine, said = engine or PluginEngine(), list[str]()
    with serving(engine) as url:
        stack = write_stack(folder, engine={"port": int(url.rpartition(":")[2])}, lag=lag)
        manager = Manager(stack, OwnEngine(stack, folder / "run", 16), said.append)
        try:
            manager.engine_ready().result(20)
            yield Life(manager, engine, folder, said)
        finally:
            manager.close()


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    with living(tmp_path, ALL) as one:
        yield one


def test_a_library_is_who_serves(life: Life) -> None:
    assert life.members() == [["law", "med"]]
    now = life.lag()
    assert (now["state"], now["k"], now["score"]) == ("serving", 2, "norm")
    assert life.engine.names["lag"] == f"lag@{now['version']}"
    life.add("guest")
    assert life.members() == [["law", "med", "guest"]]
    assert (life.lag()["k"], life.lag()["version"] != now["version"]) == (3, True)
    life.remove("guest")
    assert life.members() == [["law", "med"]]
    assert life.lag()["version"] == now["version"]
    life.remove("med")
    assert life.lag()["state"] == "broken"
    assert "a library takes two adapters that serve, and there is law@" in life.lag()["reason"]
    assert "lag" not in life.engine.names
    life.add("med")
    assert life.members() == [["law", "med"]]
    until(lambda: len(life.engine.loaded) == 3)
    assert set(life.engine.names) == {"law", "med", "lag"}


def test_routers_are_told(life: Life) -> None:
    told = life.manager.changes(-1, "test")
    assert told["up"] == {name: adapter.partition("@")[2] for name, adapter in life.engine.names.items()}
    assert told["lag"]["lag"] == {"library": "all", "libraries": {}, "k": None, "score": "norm"}
    life.manager.engine_lost()
    told = life.manager.changes(told["generation"], "test")
    assert (told["up"], told["awaited"]) == ({}, ["law", "med", "lag"])


def test_an_update_goes_on_in_the_order_that_the_engine_needs(life: Life) -> None:
    old = dict(life.engine.names)
    life.engine.done.clear()
    life.engine.busy[old["lag"]] = 1
    life.update("law")
    new = life.engine.names
    wanted = [
        f"PUT {new['law']}", f"PUT law -> {new['law']}", f"PUT {new['lag']}", f"PUT lag -> {new['lag']}",
    ]  # fmt: skip
    assert life.engine.done == wanted
    time.sleep(1)
    assert life.engine.done == wanted, "the old library still answers"
    life.engine.busy.clear()
    until(lambda: life.engine.done == [*wanted, f"DELETE {old['lag']}", f"DELETE {old['law']}"])


def test_a_removal_takes_the_library_along_first(life: Life) -> None:
    life.add("guest")
    until(lambda: len(life.engine.loaded) == 4)
    old = dict(life.engine.names)
    life.engine.done.clear()
    life.remove("guest")
    new = life.engine.names["lag"]
    assert life.engine.done == [
        f"PUT {new}", f"PUT lag -> {new}", "DELETE guest", f"DELETE {old['lag']}", f"DELETE {old['guest']}",
    ]  # fmt: skip


def test_without_a_free_slot_the_old_library_goes_on_until_there_is_one(tmp_path: Path) -> None:
    with living(tmp_path, ALL, PluginEngine(library_slots=3)) as life:
        first = dict(life.engine.names)
        life.engine.busy[first["lag"]] = 1
        life.update("law", 32)
        life.update("med", 32)
        assert "the update was refused: no library slots are free" in life.lag()["reason"]
        assert life.lag()["state"] == "serving"
        kept = life.engine.loaded[life.engine.names["lag"]]["libraries"][0]
        assert kept == [life.engine.names["law"], first["med"]]
        time.sleep(1)
        assert first["med"] in life.engine.loaded, "a library needs it"
        life.engine.busy.clear()
        until(lambda: life.lag()["reason"] == "")
        until(lambda: len(life.engine.loaded) == 3)
        assert life.engine.loaded[life.engine.names["lag"]]["libraries"] == [
            [life.engine.names["law"], life.engine.names["med"]]
        ]


def test_who_is_broken_or_adapts_a_head_is_no_member(tmp_path: Path) -> None:
    write_adapter(tmp_path / "bad", {"r": 0})
    names = ("law", "med", "bad")
    lag = {"library": list(names), "k": 3}
    with living(tmp_path, {}) as life:
        adapters = {name: {"path": name, "label": name} for name in names}
        assert "lag: described anew" in life.reload(adapters=adapters, lag=lag)
        assert life.members() == [["law", "med"]]
        assert (life.lag()["reason"], life.lag()["k"]) == ("without bad", 2)

        def head(tensors: dict[str, Any]) -> dict[str, Any]:
            prefix = "base_model.model.lm_head.lora_"
            return tensors | {
                f"{prefix}A.weight": np.ones((8, 64), "f4"),
                f"{prefix}B.weight": np.ones((128, 8), "f4"),
            }

        # A base whose shape is not known here may have heads that adapt.
        (tmp_path / "base" / "config.json").write_text('{"model_type": "other"}')
        write_adapter(tmp_path / "bad", {"target_modules": ["q_proj", "lm_head"]}, change=head)
        life.add("bad")
        assert life.engine.names["bad"]
        assert life.lag()["reason"] == "without bad"


def test_the_heaviest_version_that_serves_is_the_member(life: Life) -> None:
    for version in ("v1", "v2"):
        write_adapter(life.folder / "guest" / version)
    life.add("guest", versions={"v1": 1, "v2": 9})
    assert life.members() == [["law", "med", "guest@v2"]]
    (life.folder / "guest" / "v2" / "adapter_config.json").unlink()
    life.manager.engine_lost()
    life.engine.restart()
    for copy in (life.folder / "run" / "adapters").glob("guest@v2@*"):
        copy.rename(copy.with_name("gone"))
    life.manager.engine_ready().result(20)
    assert life.members() == [["law", "med", "guest@v1"]]


def test_an_engine_that_restarts_has_its_libraries_last(life: Life) -> None:
    before = dict(life.engine.names)
    life.manager.engine_lost()
    assert life.lag()["state"] == "configured"
    life.engine.restart()
    life.manager.engine_ready().result(20)
    assert life.engine.names == before
    assert [done for done in life.engine.done if done.startswith("PUT lag@")] == life.engine.done[-2:-1]
    assert life.manager.listed()["settled"]


def test_a_library_that_answers_nothing_is_broken_and_nothing_else(life: Life) -> None:
    life.engine.broken = {life.engine.names["lag"]}
    life.manager.engine_lost()
    life.engine.restart()
    life.manager.engine_ready().result(20)
    assert (life.lag()["state"], life.lag()["reason"]) == ("broken", "it is broken")
    assert set(life.engine.names) == {"law", "med"}
    assert not life.engine.broken & set(life.engine.loaded)
    life.engine.broken = set()
    life.reload()
    assert life.lag()["state"] == "serving"


def test_a_library_that_ends_the_engine_is_left_out_after_the_second_time(life: Life) -> None:
    life.engine.ending = {life.engine.names["lag"]}
    for tried in (1, 1, 0, 0):
        life.manager.engine_lost()
        life.engine.restart()
        life.manager.engine_ready().result(20)
        assert sum("lag@" in done for done in life.engine.done) == tried
    assert life.lag()["reason"] == "the engine died 2 times in its test; python -m serve reload tries again"
    life.engine.ending = set()
    life.update("law")
    assert life.lag()["state"] == "serving", "another library is another chance"


def test_a_reload_applies_the_section(life: Life) -> None:
    life.add("guest")
    assert life.reload(lag={"library": "all", "k": 1})[0] == "lag: described anew"
    assert life.lag()["k"] == 1
    done = life.reload(lag={"one": {"libraries": {"a": ["law", "med"]}, "score": "projection"}})
    assert done == ["lag: removed", "one: described anew", "guest: was added at run time, and stays"]
    assert life.members("one") == [["law", "med"]]
    assert "lag" not in life.engine.names
    assert [one["name"] for one in life.manager.listed()["lag"]] == ["one"]
    assert life.reload() == ["nothing differs", "guest: was added at run time, and stays"]
    with pytest.raises(Refused, match=r"lag\.guest: an adapter that was added at run time has that name"):
        life.reload(lag={"guest": ALL})


def test_no_adapter_takes_the_name_of_a_library(tmp_path: Path) -> None:
    with living(tmp_path, {"both": ALL}) as life, pytest.raises(Refused, match='the name "both" is taken'):
        life.add("both")


def test_a_remote_engines_own_library_is_up_where_it_is_listed(tmp_path: Path) -> None:
    with serving(PluginEngine(other=["law", "med", "lag"])) as url:
        write_stack(tmp_path, engine={"url": url}, lag={"lag": ALL, "more": ALL})
        stack = load(tmp_path / "adapters.yaml")
        manager = Manager(stack, RemoteEngine(stack), lambda _: None)
        try:
            manager.engine_ready().result(20)
            states = {one["name"]: (one["state"], one["reason"]) for one in manager.listed()["lag"]}
            assert states["lag"] == ("serving", "")
            assert states["more"][0] == "broken"
            assert "does not list it" in states["more"][1]
        finally:
            manager.close()


def test_a_test_that_ends_as_nobody_foresaw_leaves_nothing_in_the_engine(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    before = dict(life.engine.names)
    monkeypatch.setattr("serve.life.own.prove", fails)
    with pytest.raises(OSError, match="Cannot allocate"):
        life.add("guest")
    assert life.engine.names == before
    assert not [adapter for adapter in life.engine.loaded if adapter.startswith("guest@")]

"""A router whose adapters come and go: the real manager and its socket; only the engine behind both is a fake."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters import load, socket_file
from router.app import create_app
from router.classify import load_classifiers
from router.classify.embedding import EmbeddingClassifier
from router.manager import Manager as Door
from router.upstream import HttpUpstream
from serve.life.control import Control
from serve.life.manager import Manager
from serve.life.remote import RemoteEngine
from tests.conftest import GENERAL, LABELS, LEGAL, Wire, ask, chat, wait_ready, write_stack
from tests.servers import FakeEngine, serving

KEY = "only for this test"
COOKING = "How long do I roast a chicken of two kilos, and at what temperature?"
GUEST = {"name": "guest", "path": "some/guest", "label": "cooking, recipes, roasting and baking, kitchens"}


@dataclass(frozen=True)
class Managed(Wire):
    manager: Manager
    control: Control

    def admin(self, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        status, answer, _ = ask(method, f"{self.url}/admin/adapters{path}", body, authorization=f"Bearer {KEY}")
        return status, answer

    def chosen(self, text: str) -> str:
        """Who would answer."""
        return str(self.post("/route", {"text": text})[1]["model"])

    def models(self) -> list[str]:
        return [model["id"] for model in self.get("/v1/models")[1]["data"]]


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    """Its engine is up, and nothing is loaded yet."""
    engine = FakeEngine(["base", *LABELS, "guest", "guest@v1", "guest@v2"])
    with contextlib.ExitStack() as ends:
        engine_url = ends.enter_context(serving(engine))
        admin_key = hashlib.sha256(KEY.encode()).hexdigest()
        file = write_stack(tmp_path, engine_url, admin_key=admin_key, engine_wait_s=0.3)
        file.write_text(file.read_text().replace("engine:\n", "engine:\n  roots: [some/guest]\n"))
        stack = load(file)
        manager = Manager(stack, RemoteEngine(stack), lambda _: None)
        ends.callback(manager.close)
        control = Control(socket_file(tmp_path), manager)
        ends.callback(control.close)
        app = create_app(stack, load_classifiers(stack), HttpUpstream(engine_url), Door(str(control.file)))
        url = ends.enter_context(serving(app, stack.router.port))
        yield Managed(url, engine, stack, manager, control)


@pytest.fixture
def up(managed: Managed) -> Managed:
    """Its adapters are loaded."""
    managed.manager.engine_ready().result(10)
    wait_ready(managed.url)
    return managed


def test_a_router_is_ready_when_its_adapters_are(managed: Managed) -> None:
    deadline = time.monotonic() + 5
    while "legal, medical, finance" not in (managed.get("/ready")[1]["problem"] or ""):
        assert time.monotonic() < deadline
    assert managed.get("/ready")[0] == 503
    assert managed.post(body=chat(LEGAL))[0] == 503
    managed.manager.engine_ready().result(10)
    wait_ready(managed.url)
    assert managed.post(body=chat(LEGAL))[2]["x-lora-select-adapter"] == "legal"
    managed.manager.engine_lost()
    while managed.get("/ready")[0] == 200:
        assert time.monotonic() < deadline
    managed.manager.engine_ready().result(10)
    wait_ready(managed.url)


def test_what_is_added_is_chosen_as_soon_as_that_is_said(up: Managed) -> None:
    assert up.chosen(COOKING) == "base"
    assert up.post(body=chat(COOKING, model="guest"))[0] == 404
    status, answer = up.admin("POST", body=GUEST)
    assert (status, answer["adapters"][0]["state"]) == (200, "serving")
    assert up.models() == ["auto", "base", *LABELS, "guest"]
    assert up.chosen(COOKING) == "guest"
    assert (up.chosen(LEGAL), up.chosen(GENERAL)) == ("legal", "base")
    assert up.post(body=chat(COOKING, model="guest"))[0] == 200
    assert up.admin("DELETE", "/guest")[0] == 200
    assert up.models() == ["auto", "base", *LABELS]
    assert up.post(body=chat(COOKING, model="guest"))[0] == 404
    assert up.chosen(COOKING) == "base"


def test_words_tags_and_defaults_change_with_an_update(up: Managed) -> None:
    assert up.admin("POST", body=GUEST | {"label": "sailing, boats"})[0] == 200
    assert up.chosen(COOKING) == "base"
    new = {
        "name": "guest",
        "label": GUEST["label"],
        "tags": {"audience": "cook"},
        "system_prompt": "Be brief.",
        "disclaimer": "No cook.",
    }
    assert up.post("/route", {"text": COOKING}, x_lora_select_tags="audience=cook")[0] == 400
    assert up.admin("POST", body=new)[0] == 200
    assert up.chosen(COOKING) == "guest"
    assert up.post("/route", {"text": LEGAL}, x_lora_select_tags="audience=cook")[1]["model"] in ("guest", "base")
    assert up.post(body=chat(COOKING, model="guest"))[2]["x-lora-select-disclaimer"] == "No%20cook."
    assert up.engine.seen[-1]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_an_adapter_that_the_engine_lacks_is_broken_and_the_rest_serves(up: Managed) -> None:
    status, answer = up.admin("POST", body=GUEST | {"name": "absent"})
    assert (status, "does not list it" in answer["error"]["message"]) == (409, True)
    states = {one["name"]: one["state"] for one in up.admin("GET")[1]["adapters"]}
    assert states == dict.fromkeys(LABELS, "serving") | {"absent": "broken"}
    assert up.get("/ready")[0] == 200
    assert up.models() == ["auto", "base", *LABELS]
    assert up.chosen(COOKING) == "base"


def test_versions_are_one_model_to_clients(up: Managed) -> None:
    assert up.admin("POST", body=GUEST | {"versions": {"v1": 1, "v2": 1}})[0] == 200
    assert up.models() == ["auto", "base", *LABELS, "guest"]
    asked = set()
    for number in range(10):
        _, _, headers = up.post(body=chat(f"{COOKING} And for {number} people?"))
        assert headers["x-lora-select-adapter"] == "guest"
        assert up.engine.seen[-1]["model"] == f"guest@{headers['x-lora-select-version']}"
        asked.add(headers["x-lora-select-version"])
    assert asked == {"v1", "v2"}
    assert up.post(body=chat(COOKING, model="guest@v2"))[2]["x-lora-select-version"] == "v2"
    assert up.post(body=chat(COOKING, model="guest@v3"))[0] == 404
    up.engine.models.remove("guest@v1")
    time.sleep(1.2)  # the engine is asked once a second
    assert {up.post(body=chat(f"{number}", model="guest"))[2]["x-lora-select-version"] for number in range(9)} == {
        "v2"
    }


def test_an_engine_that_does_not_know_a_name_is_asked_what_it_knows(up: Managed) -> None:
    before = up.engine.looks
    for _ in range(6):
        assert up.post(body=chat(LEGAL, model="legal", test="gone"))[0] == 404
        time.sleep(0.05)
    assert up.engine.looks >= before + 3  # without a reason, once a second


def test_labels_that_cannot_be_taken_in_just_now_are_tried_again(
    up: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    relabelled, tries = EmbeddingClassifier.relabelled, list[int]()

    def fails_once(self: EmbeddingClassifier, labels: Mapping[str, str]) -> EmbeddingClassifier:
        tries.append(len(labels))
        if len(tries) == 1:
            raise MemoryError
        return relabelled(self, labels)

    monkeypatch.setattr(EmbeddingClassifier, "relabelled", fails_once)
    assert up.admin("POST", body=GUEST)[0] == 200
    deadline = time.monotonic() + 10
    while up.chosen(COOKING) != "guest":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(tries) == 2


def test_a_manager_that_is_gone_changes_nothing_for_clients(up: Managed) -> None:
    up.control.close()
    status, answer = up.admin("GET")
    assert (status, "the manager of adapters does not answer" in answer["error"]["message"]) == (503, True)
    assert up.post(body=chat(LEGAL))[2]["x-lora-select-adapter"] == "legal"


def test_without_a_manager_the_routes_say_so(wiring: Any) -> None:
    with wiring(admin_key=hashlib.sha256(KEY.encode()).hexdigest()) as wire:
        status, answer, _ = wire.get("/admin/adapters", authorization=f"Bearer {KEY}")
        assert (status, answer["error"]["code"]) == (404, "no_manager")


def test_a_self_test_is_for_the_admin_and_comes_back_with_its_result(up: Managed) -> None:
    url = f"{up.url}/admin/adapters"
    assert [ask(method, f"{url}/legal/test")[0] for method in ("POST", "DELETE")] == [401, 405]
    status, answer = up.admin("POST", "/legal/test")
    assert (status, "without log-probabilities" in answer["error"]["message"]) == (409, True)  # the fake, that is
    status, answer = up.admin("POST", "/nobody/test")
    assert (status, answer["error"]["message"][:27]) == (404, 'there is no adapter "nobody')
    assert up.admin("DELETE", "/test")[0] == 404, "an adapter may have that name; this stack has none"

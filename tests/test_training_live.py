"""A trained adapter on its way into a stack that runs: by socket and by URL, and whether `auto` finds it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from adapters import ConfigError, ControlError, load, socket_file
from router.app import create_app
from router.classify import load_classifiers
from router.manager import Manager as Door
from router.upstream import HttpUpstream
from serve.life.control import Control
from serve.life.loader import Refused
from serve.life.manager import Manager
from tests.conftest import LABELS, LEGAL, Wire, wait_ready, write_stack
from tests.servers import FakeEngine, free_port, serving
from tests.stack import ADMIN_KEY as STACK_KEY
from tests.stack import Running
from tests.test_manager import GUEST, Scripted, raises
from tests.test_training_register import LABEL, LORA, RECIPE, trained_on, write_trained
from tests.vllm_engine import make_adapter
from training.base import Base, read_base
from training.errors import Stopped
from training.live import Added, Live, find_live
from training.remote import ADMIN_KEY, API_KEY, Remote, key
from training.routed import Routed, routed

KEY = "only for this test"
ROSES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "When do I prune my roses?"}]
COURT = [{"role": "user", "content": LEGAL}]
PLAIN = RECIPE.model_copy(update={"tags": {}})
WAYS = pytest.mark.parametrize("way", ["socket", "url"])


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True)
class Stage(Wire):
    """A router and a manager that are real, over an engine that is not."""

    manager: Manager
    loader: Scripted
    run_dir: Path

    def live(self, way: str) -> Live:
        return find_live(f"{self.url}/" if way == "url" else str(self.run_dir))

    def check(self, way: str, name: str = "gardening", base: Base | None = None, recipe: Any = RECIPE) -> None:
        self.live(way).check(name, base or trained_on(), recipe, self.folder)

    @property
    def folder(self) -> Path:
        return self.run_dir / "roots" / "gardening"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The admin's is in the environment."""
    monkeypatch.setenv(ADMIN_KEY, KEY)
    monkeypatch.delenv(API_KEY, raising=False)
    return monkeypatch


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The manager's file names no `engine.url`: the engine that it knows is its own."""
    engine, loader = FakeEngine(["base", *LABELS, "gardening"]), Scripted()
    with contextlib.ExitStack() as ends:
        engine_url = ends.enter_context(serving(engine))
        stack = load(write_stack(tmp_path, engine_url, admin_key=digest(KEY), engine_wait_s=0.3))
        managed = tmp_path / "managed.yaml"
        managed.write_text(
            yaml.safe_dump(yaml.safe_load(stack.file.read_text()) | {"engine": {"roots": ["roots"]}})
        )
        manager = Manager(load(managed), loader, lambda _: None)
        ends.callback(manager.close)
        control = Control(socket_file(tmp_path), manager)
        ends.callback(control.close)
        app = create_app(stack, load_classifiers(stack), HttpUpstream(engine_url), Door(str(control.file)))
        url = ends.enter_context(serving(app, stack.router.port))
        manager.engine_ready().result(10)
        wait_ready(url)
        yield Stage(url, engine, stack, manager, loader, tmp_path)


# --- added ------------------------------------------------------------------------------------------------------


@WAYS
def test_what_was_trained_serves_and_is_found(stage: Stage, way: str) -> None:
    live = stage.live(way)
    router = live.router()
    live.check("gardening", trained_on(), RECIPE, stage.folder)
    write_trained(stage.folder)
    added = live.add("gardening", stage.folder, RECIPE)
    assert added == Added("gardening", "serving", "1", None)
    assert added.line() == "gardening: serving, version 1, slot -"
    assert stage.manager.known("gardening") == {
        "path": str(stage.folder), "tags": {"audience": ["gardener"]}, "sampling": {"temperature": 0.2},
        "system_prompt": "You are a gardener.",
    }  # fmt: skip
    found = routed(router, "gardening", [ROSES, COURT, [*ROSES]])
    assert (found.asked, found.own, found.others, found.refused) == (3, 2, {"legal": 1}, "")
    assert found.score is not None
    assert found.score > 0.5
    tagged = routed(router, "gardening", [ROSES], RECIPE.tags)
    assert (tagged.own, tagged.tags) == (1, {"audience": "gardener"})
    stage.loader.version = 2
    live.check("gardening", trained_on(), RECIPE, stage.folder)
    assert live.add("gardening", stage.folder, PLAIN).version == "2"
    assert "tags" in stage.manager.known("gardening")


@WAYS
def test_what_the_stack_refuses_is_kept(stage: Stage, way: str) -> None:
    live = stage.live(way)
    write_trained(stage.folder)
    stage.loader.faults["gardening"] = raises(Refused("it does nothing"))
    with pytest.raises(Stopped) as stopped:
        live.add("gardening", stage.folder, RECIPE)
    assert (
        str(stopped.value)
        == f"{live.where}: gardening is not added: it does nothing; it is kept in {stage.folder}"
    )
    (stage.folder / "manifest.json").unlink()
    with pytest.raises(Stopped, match=r"not added: .*label: missing, .*; it is kept in /"):
        live.add("gardening", stage.folder, RECIPE)


def test_a_path_outside_the_roots_is_for_the_socket_alone(stage: Stage) -> None:
    outside = write_trained(stage.run_dir / "trained" / "gardening")
    says = r"managed.yaml: engine.roots: /.* is not below any of them \(roots\); add "
    with pytest.raises(ConfigError, match=says + r"it, or leave out the URL: --live alone"):
        stage.live("url").check("gardening", trained_on(), RECIPE, outside)
    with pytest.raises(Stopped, match=says + r"its folder .*; it is kept in"):
        stage.live("url").add("gardening", outside, RECIPE)
    stage.live("socket").check("gardening", trained_on(), RECIPE, outside)
    assert stage.live("socket").add("gardening", outside, RECIPE).state == "serving"


# --- known before anything is trained ---------------------------------------------------------------------------


Spoil = Callable[[Stage], object]


def with_url(stage: Stage) -> None:
    file = stage.run_dir / "managed.yaml"
    file.write_text(file.read_text().replace("roots:", "url: http://127.0.0.1:1\n  roots:"))


def with_versions(stage: Stage) -> None:
    stage.manager.add("gardening", GUEST.model_copy(update={"versions": {"v1": 1.0, "v2": 1.0}})).result(10)


def with_limit(stage: Stage) -> None:
    stage.loader.max_rank = 1


@WAYS
@pytest.mark.parametrize(
    ("spoil", "base", "name", "says"),
    [
        (
            with_limit,
            trained_on(),
            "gardening",
            "rank 8 is above the running engine's --max-lora-rank, 1; set engine",
        ),
        (with_url, trained_on(), "gardening", "engine.url: is set, and nothing can be loaded into an engine of"),
        (with_versions, trained_on(), "gardening", "gardening has versions there; train under another --name"),
        (
            id,
            trained_on("other/base"),
            "gardening",
            "base.model: is some/base, and the adapter's is other/base; --stack",
        ),
        (id, trained_on(), "auto", 'the name "auto" is reserved'),
    ],
)
def test_what_would_be_refused_is_told_before(
    stage: Stage, way: str, spoil: Spoil, base: Base, name: str, says: str
) -> None:
    stage.check(way)
    spoil(stage)
    with pytest.raises(ConfigError, match=says) as error:
        stage.check(way, name, base)
    assert "\n" not in str(error.value)


def test_a_stack_whose_file_is_elsewhere_is_known_by_its_names(stage: Stage) -> None:
    (stage.run_dir / "managed.yaml").unlink()
    there = stage.stack
    stage.check("url")
    stage.check("url", base=trained_on(stack=there))
    named = there.model_copy(update={"base": there.base.model_copy(update={"name": "other"})})
    for base, name, says in (
        (trained_on(stack=named), "gardening", "its base is base, and the adapter's is other"),
        (trained_on(), "base", 'the name "base" is taken; train under another --name'),
        (trained_on(), "auto", 'the name "auto" is taken'),
    ):
        with pytest.raises(ConfigError, match=rf"^--live {stage.url}/: {says}"):
            stage.check("url", name, base)
    stage.loader.max_rank = 1
    with pytest.raises(ConfigError, match="rank 8 is above the running engine's --max-lora-rank, 1"):
        stage.check("url")
    stage.check("url", recipe=RECIPE.model_copy(update={"lora": LORA | {"r": "wrong, and told elsewhere"}}))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", f"needs the stack's admin key in the environment variable {ADMIN_KEY}"),
        (" ", f"needs the stack's admin key in the environment variable {ADMIN_KEY}"),
        ("secret-guess", f"{ADMIN_KEY} is refused: this needs the admin key"),
        ("secret\nguess", f"{ADMIN_KEY}: holds characters that no key has; copy it again"),
        ("sécret", f"{ADMIN_KEY}: holds characters that no key has; copy it again"),
    ],
)
def test_a_key_that_opens_nothing_is_told_and_not_shown(
    stage: Stage, keys: pytest.MonkeyPatch, value: str, says: str
) -> None:
    keys.setenv(ADMIN_KEY, value)
    with pytest.raises(ConfigError, match=says) as error:
        stage.check("url")
    assert not value.strip() or value not in str(error.value)
    stage.check("socket")


def test_nobody_answers(tmp_path: Path, wiring: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"no stack answers at .*manager.sock \(.*\); start one with python -m serve"
    ):
        find_live(str(tmp_path)).check("gardening", trained_on(), RECIPE, tmp_path)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=rf"^--live {url}: nobody answers at {url} \(.*refused\)$"):
        find_live(url).check("gardening", trained_on(), RECIPE, tmp_path)
    with pytest.raises(Stopped, match=r"not added: nobody answers at .*; it is kept in /"):
        find_live(url).add("gardening", tmp_path, RECIPE)
    with (
        wiring(admin_key=digest(KEY)) as wire,
        pytest.raises(ConfigError, match="nobody manages adapters here: python -m serve does"),
    ):
        find_live(wire.url).check("gardening", trained_on(), RECIPE, tmp_path)
    with wiring() as wire, pytest.raises(ConfigError, match=r"and the stack has none \(router.admin_key\)"):
        find_live(wire.url).check("gardening", trained_on(), RECIPE, tmp_path)


# --- a server that is no router ---------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str | None]]]:
    """Its URL, and the keys that it was shown."""
    seen = list[str | None]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["authorization"])
            self.send_response(status)
            for header in headers.items():
                self.send_header(*header)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=lambda: server.serve_forever(0.02))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (502, b"Bad Gateway"), (200, b"[]"), (200, b"{}"), (200, json.dumps({"file": 1}).encode())],
)
def test_whoever_else_answers_is_no_router(tmp_path: Path, status: int, body: bytes) -> None:
    with (
        answering(status, body) as (url, _),
        pytest.raises(ConfigError, match=r"what answers .*is no router") as error,
    ):
        find_live(url).check("gardening", trained_on(), RECIPE, tmp_path)
    assert "\n" not in str(error.value)


def test_a_key_is_for_one_server_alone(keys: pytest.MonkeyPatch) -> None:
    with answering(200, b"{}") as (second, others), answering(302, b"", location=second) as (first, shown):
        keys.setenv("http_proxy", second)
        with pytest.raises(ControlError, match="status 302"):
            Remote(first, key(ADMIN_KEY)).call("GET", "/v1/models")
    assert (shown, others) == ([f"Bearer {KEY}"], [])


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:x", "http://a@host", "http://host?key=1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected the router's address, such as http://127\.0\.0\.1:8000$"):
        find_live(url)


# --- routed -----------------------------------------------------------------------------------------------------


def test_who_may_not_ask_is_told_so(wiring: Any, keys: pytest.MonkeyPatch) -> None:
    few = {"sha256": digest("few"), "requests_per_minute": 3}
    with wiring(keys={"few": few}) as wire:
        nobody = routed(Remote(wire.url), "legal", [COURT])
        assert nobody.line() == "no question was routed: an API key is needed: Authorization: Bearer …"
        keys.setenv(API_KEY, "few")
        some = routed(Remote(wire.url, key(API_KEY)), "legal", [COURT] * 9)
        assert (some.asked, some.own) == (3, 3)
        assert some.line().endswith('; then no more: the key "few" has spent its 3 requests per minute')


def test_at_most_a_hundred_are_asked_and_only_what_users_say(wire: Wire) -> None:
    assert routed(Remote(wire.url), "legal", [COURT] * 101).asked == 100
    silent = routed(Remote(wire.url), "legal", [ROSES[:1], []])
    assert silent.line() == "no question was routed: nothing is held out that a user says"
    assert routed(Remote(wire.url), "legal", [COURT], {"audience": ("expert",)}).own == 1
    with answering(501, b"") as (url, _):
        assert "is no router of LoRA-Select's" in routed(Remote(url), "legal", [COURT]).refused


def test_routed_in_words() -> None:
    all_of_it = Routed(6, 6, {}, 0.876)
    assert all_of_it.line() == "of 6 held-out questions, auto gives 6 to it (mean score 0.88)"
    some = replace(
        all_of_it, own=3, others={"base": 2, "base (classifier-timeout)": 1}, tags={"audience": "expert"}
    )
    asked = "of 6 held-out questions, asked with audience=expert, auto gives 3 to it (mean score 0.88)"
    assert some.line() == f"{asked}, 2 to base, 1 to base (classifier-timeout)"
    assert Routed(6, 0, {"base": 6}).line() == "of 6 held-out questions, auto gives 0 to it, 6 to base"


# --- on real vLLM -----------------------------------------------------------------------------------------------


@WAYS
def test_an_adapter_joins_the_stack_that_runs(running: Running, keys: pytest.MonkeyPatch, way: str) -> None:
    keys.setenv(ADMIN_KEY, STACK_KEY)
    folder = running.roots / "gardening"
    make_adapter(folder, seed=1)
    (folder / "manifest.json").write_text(json.dumps({"label": LABEL}))
    base = read_base(PLAIN.model_copy(update={"stack": str(running.stack.file)}))
    live = find_live(running.stack.router_url if way == "url" else str(running.run_dir))
    live.check("gardening", base, PLAIN, folder)
    wide = PLAIN.model_copy(update={"lora": LORA | {"r": 512}})
    with pytest.raises(ConfigError, match=r"rank 512 is above the running engine's --max-lora-rank, \d+"):
        live.check("gardening", base, wide, folder)
    added = live.add("gardening", folder, PLAIN)
    try:
        assert (added.state, len(added.version)) == ("serving", 8)
        found = routed(live.router(), "gardening", [ROSES, COURT])
        assert (found.asked, found.own, found.others) == (2, 1, {"legal": 1})
        assert running.client.models.retrieve("gardening").id == "gardening"
    finally:
        Remote(running.stack.router_url, STACK_KEY).call("DELETE", "/admin/adapters/gardening")

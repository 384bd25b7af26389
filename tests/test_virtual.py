"""Virtual models (`lag`) in the router: listed, named, no candidates, and the answer of an unsure `auto`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import openai
import orjson
import pytest

from adapters import Engine, load
from router.app import create_app
from router.asgi import Receive, Scope, Send
from router.classify import load_classifiers
from router.explain import explain
from router.manager import Manager as Door
from router.upstream import HttpUpstream
from tests.conftest import GENERAL, LABELS, LEGAL, Wire, chat, wait_ready, wired, write_stack
from tests.servers import FakeEngine, serving

LAG = {"lag": {"library": "all"}, "pair": {"library": ["legal", "medical"], "k": 1}}
NEVER_SURE = 1.0
"""A threshold that no text reaches: whoever is ahead, an adapter answers nothing."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    tagged = {"legal": {"tags": {"field": "law"}}}
    with wired(tmp_path_factory.mktemp("mixed"), tagged, LAG, unsure="lag", threshold=NEVER_SURE) as one:
        yield one


def models(wire: Wire, **headers: str) -> list[str]:
    return [model["id"] for model in wire.get("/v1/models", **headers)[1]["data"]]


def answer(headers: dict[str, str]) -> tuple[str, str]:
    return headers["x-lora-select-adapter"], headers["x-lora-select-reason"]


def test_they_are_listed_after_the_adapters_and_can_be_named(mixed: Wire) -> None:
    client = openai.OpenAI(base_url=f"{mixed.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["auto", "base", *LABELS, "lag", "pair"]
    assert client.models.retrieve("pair").parent == "base"  # type: ignore[attr-defined]
    kinds = [model["lora_select"]["kind"] for model in mixed.get("/v1/models")[1]["data"]]
    assert kinds == ["auto", "base", *["adapter"] * len(LABELS), "virtual", "virtual"]
    raw = client.chat.completions.with_raw_response.create(**chat(LEGAL, model="pair"))
    assert raw.parse().model == "pair"
    assert answer(dict(raw.headers)) == ("pair", "named")
    assert mixed.engine.seen[-1] == chat(LEGAL, model="pair")
    status, body, _ = mixed.post(body=chat(LEGAL, model="lag@v1"))
    assert status == 404
    assert "auto, base, legal, medical, finance, lag, pair" in body["error"]["message"]


def test_one_answers_an_unsure_auto_and_is_no_candidate(mixed: Wire) -> None:
    for _ in range(2):  # from a classifier, and from what is known
        _, _, headers = mixed.post(body=chat(LEGAL))
        assert answer(headers) == ("lag", "below-threshold")
        assert "x-lora-select-score" not in headers
        assert mixed.engine.seen[-1] == chat(LEGAL, model="lag")
    assert answer(mixed.post(body=chat(GENERAL))[2]) == ("base", "classified")
    _, told, _ = mixed.post("/route", chat(LEGAL))
    assert (told["model"], told["score"], told["reason"]) == ("lag", None, "below-threshold")
    assert set(told["scores"]) == {"base", *LABELS}


@pytest.mark.parametrize("test", ["fail", "gone", "drop"])
def test_the_base_stands_in_for_one_that_was_chosen_and_fails(mixed: Wire, test: str) -> None:
    status, body, headers = mixed.post(body=chat(LEGAL, test=test))
    assert (status, body["model"], *answer(headers)) == (200, "base", "base", "fallback")
    assert mixed.post(body=chat(LEGAL, model="lag", test=test))[0] >= 404


def test_one_has_no_tags_so_it_is_left_out_where_they_are_asked_for(mixed: Wire) -> None:
    _, _, headers = mixed.post(body=chat(LEGAL), x_lora_select_tags="field=law")
    assert answer(headers) == ("base", "below-threshold")


def test_explain_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_stack(tmp_path, "http://127.0.0.1:1", lag=LAG, unsure="pair", threshold=NEVER_SURE)
    explain(load(file), LEGAL)
    assert capsys.readouterr().out.startswith("pair  (below-threshold, threshold 1.00")


def test_a_key_is_good_for_those_that_it_names(tmp_path: Path) -> None:
    allowed = {"all": None, "with": [*LABELS, "lag"], "without": [*LABELS]}
    keys = {
        name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "adapters": adapters}
        for name, adapters in allowed.items()
    }
    with wired(tmp_path, lag=LAG, unsure="lag", threshold=NEVER_SURE, keys=keys) as wire:
        bearer = {name: {"authorization": f"Bearer {name}"} for name in keys}
        assert models(wire, **bearer["all"]) == ["auto", "base", *LABELS, "lag", "pair"]
        assert models(wire, **bearer["with"]) == ["auto", "base", *LABELS, "lag"]
        assert models(wire, **bearer["without"]) == ["auto", "base", *LABELS]
        named = [wire.post(body=chat(LEGAL, model="lag"), **one)[0] for one in bearer.values()]
        assert named == [200, 200, 403]
        # The candidates are the same, and what is known of one key's decisions is not another's.
        chosen = [answer(wire.post(body=chat(LEGAL), **one)[2]) for one in (*bearer.values(), *bearer.values())]
        assert chosen == [(name, "below-threshold") for name in ("lag", "lag", "base")] * 2


def test_without_a_manager_the_engine_says_which_are_up(tmp_path: Path) -> None:
    with wired(tmp_path, lag=LAG, unsure="lag", threshold=NEVER_SURE) as wire:
        wire.engine.models.remove("lag")
        wire.post(body=chat(LEGAL, model="lag", test="gone"))  # makes the router look at once
        deadline = time.monotonic() + 5
        while wire.get("/ready")[1]["problem"] != "the engine does not list lag":
            assert time.monotonic() < deadline
        assert models(wire) == ["auto", "base", *LABELS, "pair"]
        assert wire.post(body=chat(LEGAL, model="lag"))[0] == 404
        assert answer(wire.post(body=chat(LEGAL))[2]) == ("base", "below-threshold")


# --- under a manager --------------------------------------------------------------------------------------------


@dataclass
class News:
    """What the manager's socket says: the far end of a router, which asks for what comes after a state."""

    up: dict[str, str]
    lag: dict[str, Any]
    generation: int = 0
    taken_in: int = -1
    adapters: dict[str, Any] = field(
        default_factory=lambda: {name: {"path": f"some/{name}", "label": label} for name, label in LABELS.items()}
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            return
        await receive()
        self.taken_in = int(parse_qs(scope["query_string"].decode())["after"][0])
        for _ in range(25):
            if self.generation != self.taken_in:
                break
            await asyncio.sleep(0.02)
        told = {"generation": self.generation, "settled": True, "awaited": [], "up": self.up}
        body = orjson.dumps(told | {"adapters": self.adapters, "lag": self.lag})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def tell(self, **virtual: str) -> None:
        """Which virtual models are up, with their libraries' digests; returns when the router has taken it in."""
        self.up = dict.fromkeys(LABELS, "1f2e3d4c") | virtual
        self.generation += 1
        deadline = time.monotonic() + 5
        while self.taken_in != self.generation:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Wire, News]]:
    """A router whose engine lists everything all the time."""
    engine, news = FakeEngine(["base", *LABELS, *LAG]), News({}, dict(LAG))
    with contextlib.ExitStack() as ends:
        engine_url = ends.enter_context(serving(engine))
        socket_file = str(tmp_path / "manager.sock")
        ends.enter_context(serving(news, socket_file=socket_file))
        settings: dict[str, Any] = {"unsure": "lag", "threshold": NEVER_SURE, "response_cache_mb": 1}
        stack = load(write_stack(tmp_path, engine_url, lag=LAG, **settings))
        own = Engine(port=int(engine_url.rpartition(":")[2]))  # what a manager looks after
        stack = stack.model_copy(update={"engine": own})
        app = create_app(stack, load_classifiers(stack), HttpUpstream(engine_url), Door(socket_file))
        url = ends.enter_context(serving(app, stack.router.port))
        news.tell()
        wait_ready(url)
        yield Wire(url, engine, stack), news


def test_they_come_and_go_with_the_managers_news(told: tuple[Wire, News]) -> None:
    wire, news = told
    assert models(wire) == ["auto", "base", *LABELS]
    assert answer(wire.post(body=chat(LEGAL))[2]) == ("base", "below-threshold")
    assert wire.post(body=chat(LEGAL, model="lag"))[0] == 404
    news.tell(lag="aaaa")
    assert models(wire) == ["auto", "base", *LABELS, "lag"]
    assert answer(wire.post(body=chat(LEGAL))[2]) == ("lag", "below-threshold")
    assert wire.post(body=chat(LEGAL, model="lag"))[0] == 200
    news.tell()
    assert wire.get("/ready")[0] == 200
    assert answer(wire.post(body=chat(LEGAL))[2]) == ("base", "below-threshold")


def test_a_reload_brings_and_takes_them(told: tuple[Wire, News]) -> None:
    wire, news = told
    wire.engine.models.append("new")
    news.lag = {"lag": LAG["lag"], "new": {"library": ["legal", "finance"]}}
    news.tell(lag="aaaa", new="bbbb")
    assert models(wire) == ["auto", "base", *LABELS, "lag", "new"]
    news.lag = {"new": news.lag["new"]}
    news.tell(new="bbbb")
    assert models(wire) == ["auto", "base", *LABELS, "new"]
    assert answer(wire.post(body=chat(LEGAL))[2]) == ("base", "below-threshold")


def test_an_answer_is_kept_as_long_as_the_library_is_the_same(told: tuple[Wire, News]) -> None:
    wire, news = told

    def cached() -> str:
        return wire.post(body=chat(LEGAL, model="lag", temperature=0))[2]["x-lora-select-cache"]

    news.tell(lag="aaaa")
    assert [cached(), cached()] == ["miss", "hit"]
    news.tell(lag="bbbb")
    assert [cached(), cached()] == ["miss", "hit"]
    news.tell(lag="bbbb", pair="cccc")
    assert cached() == "hit"

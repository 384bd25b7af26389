"""Tabs without a browser: an event loop of its own is not to be had beside Playwright's."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import openai
import pytest

from router.asgi import Receive, Scope, Send
from tests.servers import FakeEngine, free_port, serving
from ui.client.admin import AdminError, listed
from ui.client.compare import AT_ONCE, REPLACED, Comparison, Comparisons
from ui.client.connect import connect
from ui.client.metrics import read
from ui.tabs.compare import MOST_AT_FIRST, offer
from ui.tabs.compare.screen import shown
from ui.tabs.lag import asking
from ui.tabs.why import deciding


def test_of_many_models_the_first_are_ticked_and_so_many_are_asked_at_once() -> None:
    many = tuple((f"a{number}", f"a{number}") for number in range(40))
    assert offer(many).value == [name for _, name in many[:MOST_AT_FIRST]]
    names = [name for _, name in many]
    engine = FakeEngine(names)

    async def scenario(url: str) -> None:
        async with connect(url) as client:
            comparisons = Comparisons(client)
            request = {"messages": [{"role": "user", "content": "x"}], "extra_body": {"test": "stall"}}
            comparison = comparisons.start("tab", names, request)
            while not all(one.text for one in list(comparison.columns.values())[:AT_ONCE]):
                await asyncio.sleep(0.02)
            assert [one.asked for one in comparison.columns.values()].count(True) == AT_ONCE
            assert engine.seen_paths.count("/v1/chat/completions") == AT_ONCE
            assert shown(comparison.columns, {}).count("Waits for its turn.") == len(names) - AT_ONCE
            assert comparisons.of("another") is None
            comparisons.start("tab", [], request)
            assert not comparison.running, "a tab's next comparison ends the one before"
            assert {one.note for one in comparison.columns.values()} == {REPLACED}

    with serving(engine) as url:
        asyncio.run(asyncio.wait_for(scenario(url), 20))


def test_a_comparison_ends_when_nobody_has_looked_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.client.compare.ABANDONED_S", 0.1)

    async def scenario(url: str) -> Comparison:
        async with connect(url) as client:
            request = {"messages": [{"role": "user", "content": "x"}], "extra_body": {"test": "stall"}}
            comparison = Comparison(client, ["one"], request)
            async for _ in comparison.follow():
                if comparison.columns["one"].text:
                    break
            while comparison.running:
                await asyncio.sleep(0.02)
            return comparison

    with serving(FakeEngine(["one"])) as url:
        left = asyncio.run(asyncio.wait_for(scenario(url), 20)).columns["one"]
    assert left.note == "Stopped, because for two minutes nobody had this page open."
    assert left.text.startswith("word0")


def test_where_the_router_is_down_why_says_so_and_keeps_what_is_shown() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    async def steps() -> list[tuple[Any, ...]]:
        async with connect(url) as client:
            return [step async for step in deciding(client)("Is this legal?", "")]

    waiting, (asked, told, *shown_before) = asyncio.run(steps())
    assert "ls-wait" in waiting[1]
    assert f"The router at {url} does not answer. Is it running?" in told
    assert [asked, *shown_before] == [gr.skip()] * 4


def test_the_pages_own_key_is_no_admins_for_who_has_typed_none() -> None:
    heard: list[bytes | None] = []

    async def router(scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] == "http":
            heard.append(dict(scope["headers"]).get(b"authorization"))
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    async def both(url: str) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="the page's own", max_retries=0) as client:
            return list(await asyncio.gather(listed(client, ""), read(client, ""), return_exceptions=True))

    with serving(router) as url:
        assert [type(one) for one in asyncio.run(both(url))] == [AdminError, AdminError]
    assert heard == [b"Bearer none", b"Bearer none"]


def test_an_empty_question_leaves_lags_answer_on_the_screen() -> None:
    async def steps() -> list[Any]:
        async with connect("http://127.0.0.1:1") as client:
            return [step async for step in asking(client)("  ", "lag", 10)]

    (step,) = asyncio.run(steps())
    assert all(one == gr.skip() for one in step)

"""Compare and Why without a browser: an event loop of its own is not to be had beside Playwright's."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

from tests.servers import FakeEngine, free_port, serving
from ui.client.compare import AT_ONCE, Comparison, Comparisons
from ui.client.connect import connect
from ui.tabs.compare import MOST_AT_FIRST, offer
from ui.tabs.compare.screen import shown
from ui.tabs.why import deciding


def test_of_many_models_the_first_are_ticked_and_so_many_are_asked_at_once() -> None:
    many = tuple((f"a{number}", f"a{number}") for number in range(40))
    assert offer(many).value == [name for _, name in many[:MOST_AT_FIRST]]
    names = [name for _, name in many]
    engine = FakeEngine(names)

    async def scenario(url: str) -> None:
        comparisons = Comparisons(connect(url))
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
        assert {one.note for one in comparison.columns.values()} == {"Stopped by you."}

    with serving(engine) as url:
        asyncio.run(asyncio.wait_for(scenario(url), 20))


def test_a_comparison_ends_when_nobody_has_looked_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.client.compare.ABANDONED_S", 0.1)

    async def scenario(url: str) -> Comparison:
        request = {"messages": [{"role": "user", "content": "x"}], "extra_body": {"test": "stall"}}
        comparison = Comparison(connect(url), ["one"], request)
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
        return [step async for step in deciding(connect(url))("Is this legal?", "")]

    waiting, (asked, told, *shown_before) = asyncio.run(steps())
    assert "ls-wait" in waiting[1]
    assert f"The router at {url} does not answer. Is it running?" in told
    assert [asked, *shown_before] == [gr.skip()] * 4

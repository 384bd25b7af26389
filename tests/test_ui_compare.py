"""Compare in a real browser, over the real router; only the engine is a fake, and does what the prompt says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from adapters import load
from router.app import create_app
from router.asgi import Receive, Scope, Send
from router.classify import load_classifiers
from router.upstream import HttpUpstream
from tests import browser
from tests.browser import LOOKS, needs_browser, ui_over
from tests.conftest import LABELS, ask, chat, wait_ready, write_stack
from tests.fake_router import HOSTILE
from tests.servers import FakeEngine, serving
from ui.client.compare import Column
from ui.tabs.compare.screen import shown

ALL = ["auto", "base", *LABELS, "lag"]
LEGAL = "My landlord wants to evict me before the lease ends. What are my rights?"
DISCLAIMER = "This is no legal advice."


class Prompted(FakeEngine):
    """Answers as the prompt's own words want it: "go on" never ends, "finance fails", "hostile" is HTML."""

    async def _fails(self, test: str | None, path: str, model: str | None, send: Send) -> bool:
        wanted = f"{model} fails" in self._prompt()
        return await super()._fails("status-500" if wanted else test, path, model, send)

    async def _stream(self, path: str, request: dict[str, Any], receive: Receive, send: Send) -> None:
        prompt = self._prompt()
        more = {"test": "stall"} if "go on" in prompt else {"words": 30}
        echo = {"echo": HOSTILE, "words": 2} if "hostile" in prompt else {}
        await super()._stream(path, request | more | echo, receive, send)

    def _prompt(self) -> str:
        return str(self.seen[-1]["messages"][-1]["content"])


class Door:
    """Before the router; while it is closed, connections are refused as those of a router that is down."""

    closed = False

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.closed and scope["type"] == "http":
            send.__self__.transport.abort()  # type: ignore[attr-defined]
            return
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def engine() -> Prompted:
    return Prompted(["base", *LABELS, "lag"])


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, engine: Prompted) -> Iterator[tuple[str, Door]]:
    with ExitStack() as up:
        engine_url = up.enter_context(serving(engine))
        adapters = {"legal": {"disclaimer": DISCLAIMER}}
        file = write_stack(tmp_path_factory.mktemp("compare"), engine_url, adapters, {"lag": {"library": "all"}})
        stack = load(file)
        door = Door(create_app(stack, load_classifiers(stack), HttpUpstream(stack.engine_url)))
        url = up.enter_context(serving(door, stack.router.port))
        wait_ready(url)
        yield url, door


@pytest.fixture(scope="module")
def page_url(router: tuple[str, Door]) -> Iterator[str]:
    with ui_over(router[0]) as url:
        yield url


@pytest.fixture
def page(chromium: Browser, page_url: str) -> Iterator[Page]:
    with browser.page_at(chromium, page_url) as loaded:
        yield opened(loaded)


def opened(page: Page) -> Page:
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#ls-compare-models label.selected")).to_have_count(len(ALL))
    return page


def compare(page: Page, prompt: str) -> None:
    page.get_by_label("One prompt for all").fill(prompt)
    page.get_by_role("button", name="Compare", exact=True).click()


def finished(page: Page) -> dict[str, dict[str, str]]:
    """By column's name: what stands in it."""
    page.locator(".ls-columns[aria-busy=false]").wait_for()
    return {name: column(page, name) for name in names(page)}


def names(page: Page) -> list[str]:
    return [str(name) for name in page.locator(".ls-column").evaluate_all("all => all.map(one => one.ariaLabel)")]


def column(page: Page, name: str) -> dict[str, str]:
    parts = {"who": ".ls-line", "said": ".ls-said", "error": ".ls-error", "note": ".ls-note"}
    found = page.locator(f".ls-column[aria-label={name}]")
    seen = {part: " ".join(found.locator(css).all_inner_texts()) for part, css in parts.items()}
    labels = found.locator("dt").all_inner_texts()
    return seen | dict(zip(labels, found.locator("dd").all_inner_texts(), strict=True))


@needs_browser
@pytest.mark.parametrize(("look", "how"), LOOKS.items())
def test_every_model_answers_side_by_side(
    chromium: Browser, page_url: str, router: tuple[str, Door], look: str, how: dict[str, Any]
) -> None:
    with browser.page_at(chromium, page_url, **how) as page:
        compare(opened(page), LEGAL)
        columns = finished(page)
        assert list(columns) == ALL
        assert columns["auto"]["who"].split() == ["auto", "→", "legal", "chosen", "by", "content"]
        for seen in columns.values():
            assert seen["said"].startswith("word0 word1")
            assert seen["said"].endswith("word29")
            assert re.fullmatch(r"\d+\.\d\d s", seen["first token"])
            assert re.fullmatch(r"\d+", seen["tokens/s"]), "from the stream's own usage, so not about"
            assert seen["error"] == ""
        scores = ask("POST", f"{router[0]}/route", chat(LEGAL))[1]["scores"]
        sure = f"{scores['legal']:.0%}".replace("%", " %")
        assert columns["legal"]["router"] == columns["auto"]["router"] == sure
        assert columns["lag"]["router"] == "\N{EN DASH}", "it is no candidate"
        assert page.locator(".ls-column .ls-disclaimer").all_inner_texts() == [DISCLAIMER, DISCLAIMER]
        browser.fits(page, f"compare-{look}")


@needs_browser
def test_answers_stream_until_they_are_stopped(page: Page, engine: Prompted) -> None:
    engine.cancelled.clear()
    compare(page, "go on")
    said = page.locator(".ls-column[aria-label=finance] .ls-said")
    said.wait_for()
    early = said.inner_text()
    expect(said).not_to_have_text(early)
    assert column(page, "finance")["tokens/s"].startswith("≈ "), "the stream tells its usage only at its end"
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Stop", exact=True).click()
    columns = finished(page)
    assert {seen["note"] for seen in columns.values()} == {"Stopped by you."}
    assert columns["finance"]["said"].startswith(early)
    assert engine.cancelled.wait(5), "the engine was not told that nobody waits any more"
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_enabled()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


@needs_browser
def test_a_reload_in_mid_stream_finds_it_growing(page: Page) -> None:
    compare(page, "go on")
    said = page.locator(".ls-column[aria-label=finance] .ls-said")
    said.wait_for()
    early = said.inner_text()
    page.reload()
    opened(page)
    expect(said).to_contain_text(early)
    early = said.inner_text()
    expect(said).not_to_have_text(early)
    assert page.get_by_label("One prompt for all").input_value() == "go on"
    page.get_by_role("button", name="Stop", exact=True).click()
    assert finished(page)["finance"]["said"].startswith(early)


@needs_browser
def test_one_that_fails_says_so_in_its_own_column_and_only_the_ticked_are_asked(page: Page) -> None:
    page.locator("#ls-compare-models label").get_by_text("medical", exact=True).click()
    expect(page.locator("#ls-compare-models label.selected")).to_have_count(len(ALL) - 1)
    compare(page, "finance fails, the others do not")
    columns = finished(page)
    assert list(columns) == [name for name in ALL if name != "medical"]
    assert columns["finance"]["error"] == "The request failed (500): broken"
    assert columns["finance"]["first token"] == "\N{EN DASH}"
    for name in ("base", "legal", "lag"):
        assert (columns[name]["error"], columns[name]["said"][:5]) == ("", "word0")


@needs_browser
def test_what_a_model_says_stays_text(page: Page) -> None:
    compare(page, f"hostile {HOSTILE}")
    assert finished(page)["base"]["said"] == f"{HOSTILE} {HOSTILE}"
    assert page.locator("#ls-compare-columns img").count() == 0
    assert page.evaluate("window.hacked") is None


@needs_browser
def test_a_router_that_is_down_is_told_in_every_column(page: Page, router: tuple[str, Door]) -> None:
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#ls-compare-columns")).to_have_text("Type a prompt first.")
    router[1].closed = True
    try:
        compare(page, LEGAL)
        columns = finished(page)
    finally:
        router[1].closed = False
    told = f"The router at {router[0]} does not answer. Is it running?"
    assert [seen["error"] for seen in columns.values()] == [told] * len(ALL)
    compare(page, LEGAL)
    expect(page.locator(".ls-column[aria-label=legal] .ls-said")).to_contain_text("word29")


def test_a_column_escapes_whatever_it_is_given() -> None:
    html = shown({HOSTILE: Column(text=HOSTILE, error=HOSTILE, done=True)}, {HOSTILE: 0.5})
    assert "<img" not in html
    assert "{" not in html
    assert 'aria-busy="false"' in html

"""The tab Dashboard: over a real router, its counters, and what is drawn of them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeVar

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tests import browser
from tests.browser import LAPTOP, PHONE, needs_browser, page_at, ui_over
from tests.conftest import GENERAL, LEGAL, Wire, chat
from tests.fake_router import HOSTILE
from tests.managed import KEY, Managed, managed
from ui.client.connect import connect
from ui.client.curves import Point, point, whole
from ui.client.history import EVERY_S, History, View
from ui.client.metrics import Sample, parse, quantile, since
from ui.parts.board import board
from ui.parts.chart import Chart, Curve, chart, summary
from ui.parts.words import count, rate, seconds, size
from ui.tabs.dashboard import looking

T = TypeVar("T")
ASKED = (LEGAL, GENERAL, "What helps against a fever and a headache?", "How do mortgages and loans work?")


def done(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    with managed(tmp_path_factory.mktemp("dashboard")) as up:
        yield up


@pytest.fixture(scope="module")
def url(router: Managed) -> Iterator[str]:
    with ui_over(router.url) as page_url:
        yield page_url


@pytest.fixture(scope="module")
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The tab, unlocked, after some traffic."""
    with page_at(chromium, url, **LAPTOP) as loaded:
        unlock(loaded)
        yield loaded


def unlock(page: Page) -> Locator:
    browser.tab(page, "Dashboard")
    shown = page.locator("#ls-tab-dashboard")
    field = shown.get_by_label("Admin key")
    field.fill(KEY)
    field.press("Enter")
    shown.locator(".ls-tiles").wait_for()
    return shown


def traffic(router: Managed, times: int = 3) -> None:
    """Each time a request to every model, one that fails, and one for a model that there is not."""
    for _ in range(times):
        for text in ASKED:
            assert router.post(body=chat(text, words=20, stream=True))[0] == 200
        assert router.post(body=chat(LEGAL, model="legal", test="status-500"))[0] == 500
        assert router.post(body=chat(LEGAL, model="nobody"))[0] == 404


def tile(page: Page, name: str) -> Locator:
    return page.locator(f".ls-tiles > div:has(dt:text-is('{name}')) dd")


# --- in a browser -----------------------------------------------------------------------------------------------


@needs_browser
def test_requests_become_numbers_and_curves_that_a_reload_keeps(page: Page, router: Managed) -> None:
    expect(page.locator("#ls-dashboard")).to_contain_text(
        re.compile(r"No request in the last [\d.]+ s, which"), timeout=15_000
    )
    traffic(router)
    row = page.locator(".ls-models tr:has(th[title='legal'])")
    expect(row).to_contain_text("6", timeout=15_000)  # chosen three times, named three times
    assert row.locator("td").all_inner_texts()[1:4] == ["6", "3", "0"]
    nobody = page.locator(".ls-models tr:has(th[title='no model chosen'])")
    expect(nobody).to_contain_text("17 %")
    assert nobody.locator("td").all_inner_texts()[1:4] == ["3", "0", "3"]
    expect(tile(page, "Errors")).to_have_text("17 %")
    expect(tile(page, "Requests")).to_have_text(re.compile(r"^\d[\d.]*/s$"))
    expect(tile(page, "First byte, median")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    drawn = page.locator(".ls-chart svg").first
    expect(drawn).to_have_attribute("aria-label", re.compile("Requests per second, from .* ago to now. .*legal: "))
    before = drawn.locator("path.ls-area").count()
    page.reload()
    page.wait_for_selector(browser.QUESTION)
    shown = unlock(page)
    assert shown.locator(".ls-chart svg").first.locator("path.ls-area").count() == before
    assert shown.locator(".ls-models tr:has(th[title='legal']) td").nth(1).inner_text() == "6"


@needs_browser
def test_what_was_seen_stays_while_the_router_is_down_and_a_new_one_counts_from_nothing(
    page: Page, router: Managed
) -> None:
    router.stop()
    try:
        problem = page.locator("#ls-dashboard .ls-error")
        expect(problem).to_contain_text(f"The router at {router.url} does not answer", timeout=15_000)
        expect(problem).to_contain_text(re.compile(r"What stands below was read \d+ s ago"))
        legal = page.locator(".ls-models tr:has(th[title='legal']) td").nth(1)
        expect(legal).to_have_text("6")
    finally:
        router.start()
    expect(problem).to_have_count(0, timeout=15_000)
    assert router.post(body=chat(LEGAL))[0] == 200
    expect(legal).to_have_text("7", timeout=15_000)


def looks(page: Page, router: Managed, name: str) -> None:
    """With curves, and a row for each model."""
    traffic(router, 1)
    expect(page.locator(".ls-models tbody tr")).to_have_count(5, timeout=15_000)
    browser.fits(page, f"dashboard-{name}")


@needs_browser
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_how_the_tab_looks_on_a_laptop(page: Page, router: Managed, scheme: Literal["dark", "light"]) -> None:
    page.emulate_media(color_scheme=scheme)
    expect(page.locator("body.dark")).to_have_count(int(scheme == "dark"))
    looks(page, router, f"laptop-{scheme}")


@needs_browser
def test_how_the_tab_looks_on_a_phone(chromium: Browser, url: str, router: Managed) -> None:
    with page_at(chromium, url, **PHONE) as page:
        unlock(page)
        looks(page, router, "phone")


# --- who may see it, and how often the router is asked -----------------------------------------------------------


def test_readers_with_the_same_key_share_what_was_read_and_others_see_nothing(router: Managed) -> None:
    async def look() -> None:
        async with connect(router.url) as client:
            history = History(client)
            views = await asyncio.gather(*(history.look(KEY) for _ in range(5)))
            assert len({id(view) for view in views}) == 1
            assert len(views[0].samples) == 1
            for wrong in ("", "not the key"):
                view = await history.look(wrong)
                assert (view.closed, view.samples) == (True, ())
            await asyncio.sleep(EVERY_S)
            assert len((await history.look(KEY)).samples) == 2
            key, shown = await looking(history)("")
            assert (key.visible, "open to its admin alone" in shown) == (True, True)

    done(look())


def test_without_an_admin_key_the_metrics_are_open_and_none_is_asked_for(
    wiring: Callable[..., Any],
) -> None:
    async def look(url: str) -> None:
        async with connect(url) as client:
            key, shown = await looking(History(client))("")
            assert (key.visible, "ls-tiles" in shown) == (False, True)

    with wiring() as open_to_all:
        done(look(open_to_all.url))


# --- numbers ----------------------------------------------------------------------------------------------------


def test_a_page_of_metrics_is_read(wire: Wire) -> None:
    assert wire.post(body=chat(LEGAL))[0] == 200
    assert wire.post(body=chat(LEGAL, model="nobody"))[0] == 404

    async def page() -> str:
        async with connect(wire.url) as client:
            return await client.with_options(base_url=wire.url).get("/metrics", cast_to=str)

    sample = parse(done(page()), 5.0)
    assert (sample.at, sample.requests["legal"], sample.errors[""]) == (5.0, 1, 1)
    assert (sample.client, sample.failed("")) == ({"": 1}, 0)
    assert sample.first_byte["legal"][math.inf] == 1
    assert sum(sample.cache.values()) == 1


def test_hostile_labels_are_read_and_stay_text() -> None:
    registry = CollectorRegistry()
    name = f'{HOSTILE}"\\\n'
    Counter("lora_select_requests", "", ("adapter",), registry=registry).labels(name).inc(3)
    after = parse(generate_latest(registry).decode(), 2.0)
    assert after.requests == {name: 3}
    html = board(View((Sample(), after), (point([Sample(), after]),), problem=HOSTILE), now=3.0)
    assert "<img" not in html
    assert "{" not in html


@pytest.mark.parametrize("page", ["<html>not it</html>", "lora_select_requests_total many"])
def test_a_page_that_is_none_is_an_error(page: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse(page, 0.0)


def test_quantiles_lie_where_prometheus_puts_them() -> None:
    registry = CollectorRegistry()
    spread = Histogram("lora_select_first_byte_seconds", "", ("adapter",), buckets=(1, 2, 4), registry=registry)
    for seconds_ in (0.5, 1.5, 1.6, 3.0):
        spread.labels("a").observe(seconds_)
    buckets = parse(generate_latest(registry).decode(), 0.0).first_byte["a"]
    assert quantile(buckets, 0.5) == pytest.approx(1.5)  # the first of the two between 1 and 2
    assert quantile(buckets, 1.0) == 4
    spread.labels("a").observe(100)
    assert quantile(parse(generate_latest(registry).decode(), 0.0).first_byte["a"], 1.0) == 4
    assert quantile({1.0: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None


def samples(*counted: tuple[float, float]) -> list[Sample]:
    """At these times, so many requests."""
    return [
        Sample(at=at, requests={"a": number}, errors={"a": number / 2}, client={"a": number / 5})
        for at, number in counted
    ]


def test_a_restart_of_the_router_is_no_negative_rate() -> None:
    before, after = samples((0, 10), (2, 4))
    assert since(before, after).requests == {"a": 4}
    told = samples((0, 10), (2, 12), (4, 3), (6, 5))
    assert whole(told).requests == {"a": 2 + 5}
    assert whole(told).failed("a") == pytest.approx(0.3 * 7)
    assert point(told[:3]).rates == {"a": 3 / 2}
    assert point(told).rates == {"a": 1}  # of the new router alone
    assert whole([]).requests == {}


def test_a_point_speaks_of_its_window_and_knows_nothing_after_a_pause() -> None:
    busy = samples(*((at, at * 3) for at in range(0, 60, 2)))
    now = point(busy)
    assert now.rates == {"a": 3}
    assert (now.failed, now.client) == pytest.approx((0.3, 0.2))
    assert point([*busy, *samples((500, 400))]) == Point(500)
    assert point(samples((0, 5))) == Point(0)


# --- drawings ---------------------------------------------------------------------------------------------------


def test_a_chart_breaks_where_nothing_is_known_and_says_so_in_words() -> None:
    line = Curve(HOSTILE, [1.0, 2.0, None, 4.0])
    drawn = Chart("Errors", [0, 20, 40, 60], 60, [line], rate)
    html = chart(drawn)
    assert re.findall(r'class="ls-curve " d="([^"]+)"', html) == ["M0.0 80.0L100.0 60.0", "M300.0 20.0h0"]
    assert "<img" not in html
    assert summary(drawn).endswith("4/s at the end, between 1/s and 4/s.")
    nothing = Chart("Errors", [0, 60], 60, [Curve("a", [None, None])], rate)
    assert summary(nothing) == "Errors, from 60 s ago to now. Nothing was counted."
    assert "ls-curve" not in chart(nothing)


def test_models_stand_on_each_other() -> None:
    curves = [Curve("a", [1.0, 1.0], stacked=True, hue=1), Curve("b", [2.0, 3.0], stacked=True, hue=2)]
    html = chart(Chart("Requests", [0, 60], 60, curves, rate))
    assert '<path class="ls-area" d="M0.0 40.0L300.0 20.0L300.0 80.0L0.0 80.0Z" style="--hue:2"/>' in html
    assert "<strong>4/s</strong>" in html


def test_many_models_are_drawn_as_others() -> None:
    of = {f"adapter-{number}": float(10 * (20 - number)) for number in range(20)}
    first, second = Sample(at=1.0), Sample(at=3.0, requests=of)
    html = board(View((first, second), (point([first, second]),)), now=3.0)
    assert html.count('class="ls-area" style') == 7
    assert "14 others" in html
    assert html.count('<th scope="row"') == 20


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (seconds(0.0042), "4.2 ms"),
        (seconds(0.25), "250 ms"),
        (seconds(1.25), "1.25 s"),
        (seconds(90), "1.5 min"),
        (size(512), "512 B"),
        (size(1_234_567), "1.23 MB"),
        (size(2.5e9), "2.5 GB"),
        (count(12345), "12,345"),
        (rate(0.333), "0.33/s"),
    ],
)
def test_numbers_are_short(told: str, words: str) -> None:
    assert told == words


def test_silence_is_told_of_no_time_before_somebody_looked() -> None:
    quiet = tuple(samples((100, 7), (104, 7)))
    assert "No request in the last 4 s, which is all that this page has seen." in board(
        View(quiet, (Point(104),)), now=105.0
    )


def test_a_view_of_two_moments_keeps_what_it_knew() -> None:
    known = View(tuple(samples((0, 1), (2, 5))), (point(samples((0, 1), (2, 5))),))
    html = board(replace(known, problem="The router is gone."), now=14.0)
    assert "The router is gone. What stands below was read 12 s ago." in html
    assert "ls-tiles" in html

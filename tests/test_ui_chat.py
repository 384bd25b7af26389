"""The page in a real browser, over a small real router."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import browser
from tests.browser import LAPTOP, PHONE, ask
from tests.fake_router import ANSWER, BASE, DISCLAIMER, HOSTILE, JUNK_ANSWER, FakeRouter
from tests.servers import free_port, serving
from ui.client.decision import Decision
from ui.parts.badge import badge
from ui.parts.html import percent

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / ".run" / "screenshots"
needs_browser = pytest.mark.skipif(not browser.CHROMIUM, reason="chromium is not installed (apt install chromium)")


@pytest.fixture(scope="module")
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture(scope="module")
def url(router: FakeRouter) -> Iterator[str]:
    with serving(router) as router_url, ui_over(router_url) as page_url:
        yield page_url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.browsing() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    with browser.page_at(chromium, url) as loaded:
        yield loaded


@contextlib.contextmanager
def ui_over(router_url: str) -> Iterator[str]:
    """`python -m ui` as a process of its own, until the block ends; it must end within 5 s of SIGTERM."""
    command = [sys.executable, "-m", "ui", "--router", router_url, "--port", str(free_port())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            started = process.stdout.readline()
            assert started.startswith("ui: http://127.0.0.1:"), started
            yield started.split()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0


@needs_browser
def test_an_answer_streams_in_and_its_badge_says_who_and_why(
    page: Page, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "word_s", 0.15)
    browser.send(page, "What helps against a burn?")
    states: set[str] = set()
    while not page.locator(".ls-below[aria-busy=false]").count():
        states.add(browser.last(page).text)
        time.sleep(0.05)
    growing = sorted(states - {"", ANSWER}, key=len)
    assert len(growing) >= 2, states
    assert all(ANSWER.startswith(state) for state in growing)

    seen = browser.answered(page)
    assert (seen.text, seen.error) == (ANSWER, "")
    assert (seen.model, seen.score, seen.reason) == ("medical", "92 %", "chosen by content in 3.1 ms")
    assert next(iter(seen.bars)) == "medical"
    assert seen.bars == {"medical": "92 %", "legal": "3 %", "finance": "3 %", BASE: "<1 %"}
    widths = page.locator(".ls-fill").evaluate_all("bars => bars.map(bar => bar.offsetWidth)")
    assert widths[0] > 10 * widths[1]
    assert page.locator(".ls-disclaimer").inner_text() == DISCLAIMER
    assert page.evaluate("window.hacked") is None


@needs_browser
@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("laptop-light", {**LAPTOP, "color_scheme": "light"}),
        ("laptop-dark", {**LAPTOP, "color_scheme": "dark"}),
        ("phone", PHONE),
    ],
)
def test_the_page_fits_its_window(chromium: Browser, url: str, name: str, look: dict[str, object]) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with browser.page_at(chromium, url, **look) as page:
        assert browser.models(page)
        page.screenshot(path=SCREENSHOTS / f"{name}-empty.png")
        ask(page, "What should I put on a small burn from a hot pan?")
        ask(page, "Something where nothing fits?")
        page.wait_for_timeout(500)  # the chat scrolls smoothly
        page.screenshot(path=SCREENSHOTS / f"{name}.png")
        wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        assert not wide, "the page scrolls sideways"
        expect(page.locator(browser.QUESTION)).to_be_in_viewport()
        expect(page.locator(".ls-bar").last).to_be_in_viewport()


@needs_browser
def test_models_stand_in_the_routers_order_and_a_named_one_is_asked(page: Page, router: FakeRouter) -> None:
    assert browser.models(page) == ["auto", f"{BASE} (base)", "legal", "medical", "finance"]
    browser.choose(page, "finance")
    seen = ask(page, "What helps against a burn?")
    assert (seen.model, seen.reason, seen.score, seen.bars) == ("finance", "named by you", "", {})
    assert page.locator(".ls-disclaimer").count() == 0
    assert router.requests[-1]["model"] == "finance"


@needs_browser
def test_the_base_answers_in_plain_words_when_nothing_fits(page: Page) -> None:
    seen = ask(page, "Something where nothing fits?")
    assert (seen.model, seen.score) == (BASE, "25 %")
    assert seen.reason == "no single adapter fits well enough to be chosen"


@needs_browser
def test_hostile_text_stays_text(page: Page, router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "adapters", (*router.adapters, HOSTILE))
    page.reload()
    assert browser.models(page)[-1] == HOSTILE
    seen = ask(page, f"hostile {HOSTILE}")
    assert seen.text == JUNK_ANSWER
    assert seen.model == HOSTILE
    assert next(iter(seen.bars)) == HOSTILE
    assert page.locator("#ls-talk .user-row").inner_text() == f"hostile {HOSTILE}"
    assert page.locator("#ls-talk img, #ls-talk script").count() == 0
    assert page.evaluate("window.hacked") is None


@needs_browser
@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("please break", "The answer broke off: the engine died"),
        ("cut the line", "The answer broke off: the connection to the router was lost."),
    ],
)
def test_a_broken_stream_keeps_its_text_and_the_next_question_works(
    page: Page, question: str, sentence: str
) -> None:
    seen = ask(page, question)
    assert (seen.text, seen.error, seen.model) == ("This is an answer that", sentence, "legal")
    assert ask(page, "And now?").text == ANSWER
    assert page.locator(".ls-error").inner_text() == sentence


@needs_browser
def test_an_engine_that_is_down_is_told_and_leaves_no_trace_in_the_conversation(
    page: Page, router: FakeRouter
) -> None:
    seen = ask(page, "engine down?")
    assert (seen.text, seen.error) == ("", "The model server is not ready (503): the engine is starting")
    assert ask(page, "Up again?").text == ANSWER
    assert [message["content"] for message in router.requests[-1]["messages"]] == ["Up again?"]


@needs_browser
def test_a_router_that_is_down_is_told_and_works_once_it_is_up(chromium: Browser) -> None:
    port = free_port()
    with ui_over(f"http://127.0.0.1:{port}") as url, browser.page_at(chromium, url) as page:
        sentence = f"The router at http://127.0.0.1:{port} does not answer. Is it running?"
        expect(page.locator("#ls-status")).to_have_text(f"{sentence} Reload this page once it is up.")
        assert ask(page, "Anyone?").error == sentence
        with serving(FakeRouter(), port):
            assert ask(page, "And now?").text == ANSWER
            page.reload()
            assert "legal" in browser.models(page)
            expect(page.locator("#ls-status")).to_be_hidden()


@needs_browser
def test_a_conversation_goes_along_until_a_new_chat(page: Page, router: FakeRouter) -> None:
    page.locator("#ls-talk .example").first.click()
    page.locator(browser.ANSWER).wait_for()
    first = page.locator("#ls-talk .user-row").inner_text()
    page.fill(browser.QUESTION, "And then?")
    page.press(browser.QUESTION, "Enter")  # too early: it stays in its box until the first is answered
    assert browser.answered(page).text == ANSWER
    assert page.input_value(browser.QUESTION) == "And then?"
    assert ask(page, "And then?").text == ANSWER
    assert [message["content"] for message in router.requests[-1]["messages"]] == [first, ANSWER, "And then?"]

    before = router.given_up
    browser.send(page, "One more?")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#ls-talk .user-row")).to_have_count(0)
    deadline = time.monotonic() + 5
    while router.given_up == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert router.given_up == before + 1, "the router was not told that nobody waits any more"
    ask(page, "Hello?")
    assert [message["content"] for message in router.requests[-1]["messages"]] == ["Hello?"]


@needs_browser
def test_settings_reach_the_router(page: Page, router: FakeRouter) -> None:
    ask(page, "Hello?")
    assert (router.requests[-1]["max_tokens"], router.requests[-1]["temperature"]) == (200, 0)
    page.get_by_text("Settings", exact=True).click()
    browser.set_number(page, "Longest answer, in tokens", 8)
    ask(page, "Short, please?")
    assert router.requests[-1]["max_tokens"] == 8
    assert page.locator(".ls-note").inner_text() == "Cut at the longest answer that Settings allow."


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config", "no-such.yaml"], "no-such.yaml: no such file"),
        (["--router", "http://127.0.0.1:1", "--port", "{taken}"], "is it in use?"),
    ],
)
def test_what_cannot_start_says_so_in_one_line(url: str, flags: list[str], said: str) -> None:
    command = [sys.executable, "-m", "ui", *(flag.format(taken=url.rpartition(":")[2]) for flag in flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_badge_escapes_whatever_it_is_given() -> None:
    html = badge(Decision(HOSTILE, '"><b>', 0.5, 1.0, {HOSTILE: 0.5, "b": float("nan")}))
    assert "<img" not in html
    assert "<b>" not in html
    assert "{" not in html


def test_many_scores_are_cut_to_the_best() -> None:
    html = badge(
        Decision("a0", "classified", 0.3, 1.0, {f"a{number}": 0.3 / (number + 1) for number in range(40)})
    )
    assert html.count('role="meter"') == 6
    assert "and 34 more" in html


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.001, "<1 %"), (0.5, "50 %"), (0.999, ">99 %"), (1, "100 %")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text

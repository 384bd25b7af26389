"""The page in a real browser, over a small real router."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import browser
from tests.browser import LOOKS, ROOT, ask, eventually, needs_browser, ui_over
from tests.fake_router import ANSWER, BASE, DISCLAIMER, HELD, HOSTILE, JUNK_ANSWER, LONG_ANSWER, FakeRouter
from tests.servers import free_port, serving
from ui.client.decision import Decision
from ui.parts.badge import badge
from ui.parts.html import percent

KEY = "sk-secret-of-this-test"
LISTEN = """window.heard = [];
const { fetch } = window;
window.fetch = async (...asked) => {
  const answer = await fetch(...asked), stream = answer.clone().body?.pipeThrough(new TextDecoderStream());
  (async () => { for await (const text of stream ?? []) heard.push(text); })().catch(() => {});
  return answer;
};"""
"""Hears all that the page is told, streams too."""
MAX_START_S = 6.0
"""Of CPU, which others on the machine stretch too: alone it is about 3 s."""
TYPE_ON = """() => {
  const box = document.querySelector("#ls-question textarea");
  let last = performance.now();
  [window.typed, window.longest] = [0, 0];
  setInterval(() => {
    if (!document.querySelector(".ls-below[aria-busy=true]")) { last = performance.now(); return; }
    window.typed += 1;
    window.longest = Math.max(window.longest, performance.now() - last);
    last = performance.now();
    box.value = `typed ${window.typed} times`;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }, 50);
}"""
"""Types while an answer grows, and notes the longest time in which the page let it wait."""


@pytest.fixture(scope="module")
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture(scope="module")
def url(router: FakeRouter) -> Iterator[str]:
    with serving(router) as router_url, ui_over(router_url, key=KEY) as page_url:
        yield page_url


@pytest.fixture(autouse=True)
def held_back(router: FakeRouter) -> None:
    router.go.clear()


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    with browser.page_at(chromium, url) as loaded:
        yield loaded


def said(router: FakeRouter) -> list[str]:
    """What the last request told of the conversation."""
    return [message["content"] for message in router.requests[-1]["messages"]]


def held(page: Page) -> None:
    """Wait until an answer has come as far as it will for now."""
    assert eventually(lambda: browser.last(page).text == HELD, 30), browser.last(page)


@needs_browser
def test_an_answer_streams_in_and_its_badge_says_who_and_why(page: Page, router: FakeRouter) -> None:
    browser.send(page, "What helps against a burn? hold")
    held(page)
    assert browser.last(page).bars == {}, "nothing of what comes later"
    router.go.set()
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
@pytest.mark.parametrize(("name", "look"), LOOKS.items())
def test_the_page_fits_its_window(chromium: Browser, url: str, name: str, look: dict[str, object]) -> None:
    with browser.page_at(chromium, url, **look) as page:
        assert browser.models(page)
        browser.fits(page, f"chat-{name}-empty")
        ask(page, "What should I put on a small burn from a hot pan?")
        ask(page, "Something where nothing fits?")
        page.wait_for_timeout(500)  # the chat scrolls smoothly
        browser.fits(page, f"chat-{name}")
        expect(page.locator(".ls-bar").last).to_be_in_viewport()
        box, below = page.locator("#ls-question").bounding_box(), page.locator("#ls-folds").bounding_box()
        assert box
        assert below
        height = page.evaluate("innerHeight")
        assert height - 40 < below["y"] + below["height"] <= height, "the chat does not fill the window"
        assert box["width"] < 54 * 16 + 1


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
            assert browser.questions(page) == ["Anyone?", "And now?"]


@needs_browser
def test_a_conversation_goes_along_until_a_new_chat_and_can_be_opened_again(
    page: Page, router: FakeRouter
) -> None:
    page.locator("#ls-talk .example").first.click()
    page.locator(browser.ANSWER).wait_for()
    first = browser.questions(page)[0]
    assert browser.answered(page).text == ANSWER
    browser.send(page, "And hold?")
    held(page)
    page.fill(browser.QUESTION, "And then?")
    page.press(browser.QUESTION, "Enter")  # too early: it stays in its box until the first is answered
    router.go.set()
    assert browser.answered(page).text == ANSWER
    assert page.input_value(browser.QUESTION) == "And then?"
    assert ask(page, "And then?").text == ANSWER
    assert said(router) == [first, ANSWER, "And hold?", ANSWER, "And then?"]
    page.fill(browser.QUESTION, "")
    page.press(browser.QUESTION, "Enter")  # an empty question asks nothing and takes nothing away
    page.wait_for_timeout(300)
    assert browser.questions(page) == [first, "And hold?", "And then?"]

    router.go.clear()
    before = router.given_up
    browser.send(page, "One more? hold")
    held(page)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#ls-talk .user-row")).to_have_count(0)
    assert eventually(lambda: router.given_up == before + 1), "the router was not told that nobody waits any more"
    ask(page, "Hello?")
    assert said(router) == ["Hello?"]

    page.get_by_role("button", name="Earlier chats").click()
    page.locator("#ls-kept label", has_text=first[:60]).click()
    expect(page.locator("#ls-talk .user-row")).to_have_text([first, "And hold?", "And then?", "One more? hold"])
    assert page.locator(".ls-note").last.inner_text() == "Stopped by you."
    assert ask(page, "Go on?").text == ANSWER
    assert said(router)[2:6] == ["And hold?", ANSWER, "And then?", ANSWER]
    page.get_by_role("button", name="Forget them all").click()
    expect(page.locator("#ls-kept label")).to_have_count(1)  # the one that is open


@needs_browser
def test_an_answer_can_be_stopped_asked_again_and_its_question_edited(page: Page, router: FakeRouter) -> None:
    before = router.given_up
    browser.send(page, "What helps against a burn? hold")
    expect(page.locator(".ls-wait span")).to_have_text(re.compile(r"Nothing new for \d+ s"))
    page.keyboard.press("Escape")
    seen = browser.answered(page)
    assert (seen.text, seen.model) == (HELD, "medical")
    assert page.locator(".ls-note").inner_text() == "Stopped by you."
    assert eventually(lambda: router.given_up == before + 1)

    router.adapters = ("legal", "finance")  # another model now
    try:
        browser.send(page, "And a <b>scald</b> & hold?")
        held(page)
        page.locator("#ls-question .stop-button").click()
        browser.answered(page)
        router.go.set()
        browser.button(page, "Retry").click()
        expect(page.locator(browser.ANSWER).last.locator(".ls-bar")).not_to_have_count(0)
        assert browser.answered(page).text == ANSWER
        assert said(router)[1:] == [HELD, "And a <b>scald</b> & hold?"]
        switched = page.locator(browser.ANSWER).last.locator(".ls-switched").inner_text()
        assert switched == "switched from medical to legal: the history is prefilled again"
    finally:
        router.adapters = FakeRouter.adapters

    browser.button(page, "Edit").click()
    edited = page.locator("#ls-talk textarea")
    expect(edited).to_have_value("And a <b>scald</b> & hold?")
    assert edited.evaluate("box => [box.offsetWidth, box.offsetHeight]") == [38 * 16, 4.5 * 16]
    edited.fill("And a scald? " * 200)
    assert edited.evaluate("box => box.offsetHeight > 200 && box.offsetHeight < innerHeight / 2")
    edited.press("Escape")
    expect(edited).to_have_count(0)
    page.locator('#ls-talk button[aria-label="Edit"]').first.click()
    edited.fill("Something <i>else</i>?")
    edited.press("Enter")
    expect(page.locator("#ls-talk .user-row")).to_have_text(["Something <i>else</i>?"])
    assert browser.answered(page).text == ANSWER
    assert said(router) == ["Something <i>else</i>?"]


@needs_browser
def test_a_reload_in_mid_stream_loses_nothing(page: Page, router: FakeRouter) -> None:
    asked, left = len(router.requests), router.given_up
    browser.send(page, "What helps against a burn? hold")
    held(page)
    page.fill(browser.QUESTION, "a thought not sent yet")
    page.reload()
    page.locator(browser.ANSWER).wait_for()
    held(page)
    router.go.set()
    seen = browser.answered(page)
    assert (seen.text, seen.model, seen.bars["medical"]) == (ANSWER, "medical", "92 %")
    assert page.input_value(browser.QUESTION) == "a thought not sent yet"
    assert (len(router.requests), router.given_up) == (asked + 1, left), "it was asked again"


@needs_browser
def test_two_tabs_stream_at_once_and_a_twin_shows_the_same(page: Page, router: FakeRouter) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    browser.send(page, "What helps against a burn? hold")
    browser.send(other, "Something where nothing fits? hold")
    with page.expect_popup() as opened:  # a tab that another opens starts with a copy of its session
        page.evaluate("open(location.href)")
    twin = opened.value
    twin.locator(browser.ANSWER).wait_for()
    for one in (page, other, twin):
        held(one)
    router.go.set()
    assert [browser.answered(one).model for one in (page, other, twin)] == ["medical", BASE, "medical"]
    ask(twin, "And then?")
    ask(page, "And now?")
    together = ["What helps against a burn? hold", "And then?", "And now?"]
    assert browser.questions(page) == together
    assert browser.questions(other) == ["Something where nothing fits? hold"]
    assert said(router)[::2] == together


@needs_browser
def test_a_page_whose_server_is_started_anew_keeps_what_it_showed(chromium: Browser, router: FakeRouter) -> None:
    port = free_port()
    with serving(router) as router_url, browser.browsing_at(chromium) as page:
        with ui_over(router_url, port) as url:
            page.goto(url)
            browser.send(page, "What helps against a burn? hold")
            held(page)
        told = page.get_by_text("Connection to the server was lost")
        expect(told).to_be_visible()
        assert browser.last(page).text == HELD
        with ui_over(router_url, port):
            expect(told).to_have_count(0)
            seen = browser.answered(page)
            assert (seen.text, seen.model) == (HELD, "medical")
            note = "The page's server was started anew, so this answer broke off here."
            assert page.locator(".ls-note").inner_text() == note
            assert ask(page, "Go on?").text == ANSWER
            assert said(router)[1] == HELD


@needs_browser
def test_an_answer_of_20000_tokens_streams_and_the_page_stays_usable(page: Page) -> None:
    page.evaluate(TYPE_ON)
    browser.send(page, "A long answer, please")
    assert browser.answered(page, 120).text == LONG_ANSWER
    typed, longest = page.evaluate("[window.typed, window.longest]")
    assert typed > 5
    assert longest < 5000, f"nothing could be typed for {longest} ms"


@needs_browser
def test_tags_narrow_who_may_be_chosen(page: Page, router: FakeRouter) -> None:
    audience = page.get_by_role("radiogroup", name="audience").or_(page.locator("#ls-tag-0"))
    audience.first.get_by_text("patient").click()
    ask(page, "What helps against a burn?")
    assert router.requests[-1]["metadata"] == {"audience": "patient"}
    audience.first.get_by_text("any").click()
    ask(page, "And now?")
    assert "metadata" not in router.requests[-1]


@needs_browser
def test_settings_reach_the_router(page: Page, router: FakeRouter) -> None:
    ask(page, "Hello?")
    sent = router.requests[-1]
    assert (sent["max_tokens"], sent["temperature"]) == (200, 0)
    assert not {"top_p", "seed", "stop", "metadata"} & sent.keys()
    page.get_by_role("button", name="Settings").click()
    browser.set_number(page, "Longest answer, in tokens", 8)
    browser.set_number(page, "Top p", 0.5)
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Stop at").fill("END")
    page.get_by_label("System prompt").fill("Be brief.")
    ask(page, "Short, please?")
    sent = router.requests[-1]
    assert [sent[name] for name in ("max_tokens", "top_p", "seed", "stop")] == [8, 0.5, 7, ["END"]]
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert page.locator(".ls-note").inner_text() == "Cut at the longest answer that Settings allow."


@needs_browser
def test_the_key_never_reaches_the_browser(chromium: Browser, url: str, router: FakeRouter) -> None:
    with browser.browsing_at(chromium) as page:
        page.add_init_script(LISTEN)
        page.goto(url)
        page.wait_for_selector(browser.QUESTION)
        ask(page, "What helps against a burn?")
        heard = page.evaluate("heard.join()")
        kept = page.evaluate(
            "JSON.stringify([localStorage, sessionStorage, gradio_config, document.body.outerHTML])"
        )
    assert f"Bearer {KEY}" in router.keys
    assert "process_completed" in heard
    assert "medical" in heard
    assert KEY not in heard + kept + urllib.request.urlopen(f"{url}/config").read().decode()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config", "no-such.yaml"], "no-such.yaml: no such file"),
        (["--router", "http://127.0.0.1:1", "--port", "{taken}"], "is it in use?"),
    ],
)
def test_what_cannot_start_says_so_in_one_line(url: str, flags: list[str], said: str) -> None:
    command = [sys.executable, "-m", "ui", *(flag.format(taken=url.rpartition(":")[2]) for flag in flags)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stdout) == (2, "")
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used_s < MAX_START_S, f"{used_s:.1f} s of CPU to come as far as listening"
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_badge_escapes_whatever_it_is_given() -> None:
    html = badge(Decision(HOSTILE, '"><b>', 0.5, 1.0, {HOSTILE: 0.5, "b": float("nan")}))
    assert "<img" not in html
    assert "<b>" not in html
    assert "{" not in html


def test_a_badge_says_whether_the_choice_was_remembered() -> None:
    assert "chosen by content in 3.1 ms" in badge(Decision("law", "classified", 0.9, 3.1, {}))
    assert "chosen by content (remembered)" in badge(Decision("law", "classified", 0.9, 0.0, {}))


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

"""Driving the page in a real browser: the steps that the tests of the page and of the whole stack share."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, TimeoutError, sync_playwright

CHROMIUM = shutil.which("chromium") or ""
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAPTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
ANSWER = "#ls-talk .bot-row"
QUESTION = "#ls-question textarea"
READ = """answer => {
  const texts = part => [...answer.querySelectorAll(part)].map(found => found.innerText);
  const shares = texts(".ls-percent");
  return {
    text: texts(".message-content").join(""),
    model: texts(".ls-pill").join(""),
    reason: texts(".ls-reason").join(""),
    score: texts(".ls-score").join(""),
    bars: Object.fromEntries(texts(".ls-name").map((name, place) => [name, shares[place]])),
    error: texts(".ls-error").join(""),
  };
}"""


@dataclass(frozen=True)
class Seen:
    """The last answer as a reader sees it; `score` and `bars` hold texts such as "93 %"."""

    text: str
    model: str
    reason: str
    score: str
    bars: dict[str, str]
    error: str


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """Debian's chromium, headless, with its own calls home switched off."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def page_at(browser: Browser, url: str, **look: Any) -> Iterator[Page]:
    """The page, loaded, in a window of its own. Fails if it asked anything of another host or threw."""
    context: BrowserContext = browser.new_context(**(look or LAPTOP))
    page = context.new_page()
    wrong: list[str] = []
    page.on("request", lambda request: None if _own(request.url, url) else wrong.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(url)
    page.wait_for_selector(QUESTION)
    try:
        yield page
    finally:
        context.close()
    assert not wrong, wrong


def models(page: Page) -> list[str]:
    """The names that can be chosen, in the page's order."""
    page.locator("#ls-model label").nth(1).wait_for()
    return page.locator("#ls-model label").all_inner_texts()


def choose(page: Page, label: str) -> None:
    """Pick who answers."""
    page.locator("#ls-model label").get_by_text(label, exact=True).click()
    page.locator("#ls-model label.selected").get_by_text(label, exact=True).wait_for()


def set_number(page: Page, label: str, value: float) -> None:
    """Type into one of the unfolded settings. A slider just drawn falls back to its default once: type again."""
    box = page.get_by_label(f"number input for {label}")
    for _ in range(10):
        box.fill(str(value))
        box.press("Tab")
        page.wait_for_timeout(500)
        if box.input_value() == str(value):
            return
    raise AssertionError(f"{label} does not stay {value}")


def send(page: Page, question: str) -> None:
    """Type a question and send it; returns when it stands in the conversation."""
    sent = page.locator(ANSWER).nth(page.locator(ANSWER).count())
    page.fill(QUESTION, question)
    for _ in range(10):  # for a moment after an answer the page still takes no question
        page.press(QUESTION, "Enter")
        with contextlib.suppress(TimeoutError):
            sent.wait_for(timeout=2000)
            return
    raise AssertionError(f"not sent: {question}")


def ask(page: Page, question: str, timeout_s: float = 60) -> Seen:
    """Send a question and wait until its answer is complete."""
    send(page, question)
    return answered(page, timeout_s)


def answered(page: Page, timeout_s: float = 60) -> Seen:
    """Wait until the last answer is complete."""
    page.locator(ANSWER).last.locator(".ls-below[aria-busy=false]").wait_for(timeout=timeout_s * 1000)
    return last(page)


def last(page: Page) -> Seen:
    """The last answer as it stands now, complete or not; read at one instant, because it may be growing."""
    return Seen(**page.locator(ANSWER).last.evaluate(READ))


def _own(asked: str, url: str) -> bool:
    return asked.startswith(("data:", "blob:")) or urlsplit(asked).netloc == urlsplit(url).netloc

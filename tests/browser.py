"""Driving the page in a real browser: the steps that the tests of the page and of the whole stack share."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, TimeoutError, expect, sync_playwright

from tests.axe import violations
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / ".run" / "screenshots"
CHROMIUM = shutil.which("chromium") or ""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (apt install chromium)")
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
LOOKS: dict[str, dict[str, Any]] = {
    "laptop-light": {**LAPTOP, "color_scheme": "light"},
    "laptop-dark": {**LAPTOP, "color_scheme": "dark"},
    "phone": PHONE,
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
    expect.set_options(timeout=30_000)  # what is expected comes at once, but not on a machine that others use too
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def ui_over(router_url: str, port: int | None = None, key: str = "none") -> Iterator[str]:
    """`python -m ui` as a process of its own, until the block ends; it must end soon after SIGTERM."""
    command = [sys.executable, "-m", "ui", "--router", router_url, "--port", str(port or free_port())]
    environment = {**os.environ, "LORA_SELECT_API_KEY": key}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            started = process.stdout.readline()
            assert started.startswith("ui: http://127.0.0.1:"), started
            yield started.split()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


@contextlib.contextmanager
def browsing_at(browser: Browser) -> Iterator[Page]:
    """An empty window, for a page whose server goes away: what its scripts complain of is not looked at."""
    context = browser.new_context(**LAPTOP)
    yield context.new_page()
    context.close()


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


def fits(page: Page, picture: str) -> None:
    """A picture for people. Nothing lies beside the window, and axe finds nothing wrong."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{picture}.png")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "the page scrolls sideways"
    assert violations(page) == []


def models(page: Page) -> list[str]:
    """The names that can be chosen, in the page's order."""
    page.locator("#ls-model label").nth(1).wait_for()
    return page.locator("#ls-model label").all_inner_texts()


def tab(page: Page, name: str) -> None:
    """Open one of the page's tabs; where a window is too narrow for all, the last ones stand behind a button."""
    page.get_by_role("tab").first.wait_for()
    if not page.get_by_role("tab", name=name, exact=True).is_visible():
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button").get_by_text(name, exact=True).click()
    else:
        page.get_by_role("tab", name=name, exact=True).click()


def choose(page: Page, label: str) -> None:
    """Pick who answers."""
    page.locator("#ls-model label").get_by_text(label, exact=True).click()
    page.locator("#ls-model label.selected").get_by_text(label, exact=True).wait_for()


def set_number(page: Page, label: str, value: float) -> None:
    """Type into a number's box or a slider's. A slider just drawn falls back to its default once: type again."""
    box = page.get_by_label(f"number input for {label}").or_(page.get_by_label(label, exact=True)).first
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


def button(page: Page, label: str) -> Locator:
    """The last of the chat's own small buttons of that name."""
    return page.locator(f'#ls-talk button[aria-label="{label}"]').last


def questions(page: Page) -> list[str]:
    """What stands in the conversation from the reader's side."""
    return page.locator("#ls-talk .user-row").all_inner_texts()


def eventually(holds: Callable[[], bool], within_s: float = 10) -> bool:
    """Whether it holds before long."""
    deadline = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


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

"""Why in a real browser, over the real router and its embedded classifier; only the engine is a fake."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests import browser
from tests.browser import LOOKS, needs_browser, set_number, ui_over
from tests.conftest import LEGAL, Wire, ask, wired
from tests.fake_router import HOSTILE
from ui.client.route import DryRun, Judged, conversation
from ui.tabs.why.screen import details, verdict

ADMIN = "k-admin"
TALK = f"system: You are a doctor.\nuser: {LEGAL}\nassistant: Buy shares of a bank.\nuser: and in Spain?"
SLIDER = "What if the threshold were"


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    admin = hashlib.sha256(ADMIN.encode()).hexdigest()
    adapters = {"medical": {"tags": {"audience": ["patient", "student"]}}}
    kept = {"decision_log": "decisions.db", "admin_key": admin}
    with wired(tmp_path_factory.mktemp("why"), adapters, max_body_mb=0.05, **kept) as one:
        yield one


@pytest.fixture(scope="module")
def page_url(router: Wire) -> Iterator[str]:
    with ui_over(router.url) as url:
        yield url


@pytest.fixture
def page(chromium: Browser, page_url: str) -> Iterator[Page]:
    with browser.page_at(chromium, page_url) as loaded:
        yield opened(loaded)


def opened(page: Page) -> Page:
    page.get_by_role("tab", name="Why").click()
    return page


def judge(page: Page, text: str) -> None:
    page.get_by_label("What to judge").fill(text)
    page.get_by_role("button", name="What would the router do?").click()


def bars(page: Page) -> dict[str, str]:
    found = page.locator("#ls-why-details .ls-bars")
    return dict(zip(found.locator(".ls-name").all_inner_texts(), percents(found), strict=True))


def percents(within: Locator) -> list[str]:
    return within.locator(".ls-percent").all_inner_texts()


def line_at(page: Page) -> float:
    """Where the threshold's line is drawn, as a share of a bar's track."""
    drawn = "track => parseFloat(getComputedStyle(track, '::after').left) / track.offsetWidth"
    return float(page.locator("#ls-why-details .ls-bars .ls-track").first.evaluate(drawn))


@needs_browser
@pytest.mark.parametrize(("look", "how"), LOOKS.items())
def test_all_that_a_decision_went_by_is_shown(
    chromium: Browser, page_url: str, router: Wire, look: str, how: dict[str, Any]
) -> None:
    with browser.page_at(chromium, page_url, **how) as page:
        judge(opened(page), TALK)
        expect(page.locator("#ls-why-verdict .ls-pill")).to_have_text("legal")
        expect(page.locator("#ls-why-verdict .ls-reason")).to_have_text("kept from the conversation")
        told = ask("POST", f"{router.url}/route", {"messages": conversation(TALK)})[1]
        assert list(bars(page)) == list(told["scores"])
        assert line_at(page) == pytest.approx(told["threshold"], abs=0.01)
        facts = page.locator("#ls-why-verdict .ls-facts").inner_text()
        assert facts.startswith("The classifier embedding ")
        assert facts.endswith("Threshold: 0.50.")
        turns = page.locator(".ls-weights li")
        assert turns.locator(".ls-quote").all_inner_texts() == ["You are a doctor.", LEGAL, "and in Spain?"]
        weights = [int(share.rstrip(" %")) for share in percents(turns)]
        assert weights[0] == 10, "router.system_weight"
        assert sum(weights[1:]) == pytest.approx(100, abs=1)
        assert "medical" in turns.nth(0).locator(".ls-facts").inner_text()
        assert "legal" in turns.nth(1).locator(".ls-facts").inner_text()
        browser.fits(page, f"why-{look}")


@needs_browser
def test_another_threshold_shows_what_would_change_and_leaves_nothing_behind(page: Page, router: Wire) -> None:
    judge(page, TALK)
    said = page.locator(".ls-what-if")
    expect(said).to_have_text("0.50 is what holds now.")
    before = bars(page)
    set_number(page, SLIDER, 0.99)
    expect(said).to_have_text(
        "At 0.99, base would answer instead of legal: no single adapter fits well enough to be chosen."
    )
    assert line_at(page) == pytest.approx(0.99, abs=0.01)
    assert bars(page) == before
    assert page.locator("#ls-why-details .ls-chosen .ls-name").inner_text() == "base"
    expect(page.locator("#ls-why-verdict .ls-pill")).to_have_text("legal")
    page.get_by_role("slider", name=f"range slider for {SLIDER}").press("Home")
    expect(said).to_have_text("At 0.00 nothing changes: legal would answer.")
    set_number(page, SLIDER, 0.5)
    expect(said).to_have_text("0.50 is what holds now.")
    status, kept, _ = router.get("/admin/decisions", authorization=f"Bearer {ADMIN}")
    assert (status, kept["decisions"]) == (200, [])


@needs_browser
def test_tags_narrow_the_candidates_and_an_unknown_one_is_told(page: Page) -> None:
    tags = page.get_by_label("Tags")
    tags.wait_for()
    expect(page.locator("#ls-why-tags")).to_contain_text("audience=patient or student")
    tags.fill("audience=patient")
    judge(page, "Which symptoms does a heart attack have?")
    expect(page.locator("#ls-why-verdict .ls-reason")).to_have_text(
        "the only adapter that may answer this, and it fits"
    )
    assert set(bars(page)) == {"medical", "base"}
    tags.fill("audience=doctor")
    tags.press("Enter")
    expect(page.locator("#ls-why-status .ls-error")).to_have_text(
        'The request was refused (400): unknown value "doctor" of the tag "audience"; there are patient, student'
    )
    assert set(bars(page)) == {"medical", "base"}, "what was on the screen stays"


@needs_browser
def test_what_is_pasted_stays_text(page: Page) -> None:
    judge(page, f"user: {HOSTILE}\nuser: {HOSTILE}")
    page.locator(".ls-weights").wait_for()
    assert page.locator(".ls-quote").all_inner_texts() == [HOSTILE, HOSTILE]
    assert page.locator("#ls-why-details img").count() == 0
    assert page.evaluate("window.hacked") is None


@needs_browser
def test_what_cannot_be_judged_is_told(page: Page) -> None:
    judge(page, "  ")
    expect(page.locator("#ls-why-status")).to_have_text("Type a text first.")
    judge(page, "system: Be brief.")
    expect(page.locator("#ls-why-verdict .ls-reason")).to_have_text(
        "there was no text to judge, so the base answered"
    )
    expect(page.locator("#ls-why-verdict .ls-facts")).to_have_text("Nothing was judged, so no threshold applied.")
    expect(page.locator("#ls-why-threshold")).to_be_hidden()
    judge(page, "x" * 60_000)
    expect(page.locator("#ls-why-status .ls-error")).to_contain_text("The request was refused (413): ")


@pytest.mark.parametrize(
    ("said", "spoken"),
    [
        ("What is a tort?", [("user", "What is a tort?")]),
        ("user: a\nAssistant: b\n\nUSER:  c\nd", [("user", "a"), ("assistant", "b"), ("user", "c\nd")]),
        ("first\nassistant: b", [("user", "first"), ("assistant", "b")]),
        ("system: s\nuser: the user: it is I", [("system", "s"), ("user", "the user: it is I")]),
        ("user:\nassistant: b", [("assistant", "b")]),
        (" \n", []),
    ],
)
def test_a_conversation_is_read_from_its_lines(said: str, spoken: list[tuple[str, str]]) -> None:
    assert [(one["role"], one["content"]) for one in conversation(said)] == spoken


def test_a_chain_of_classifiers_is_told_and_who_would_have_the_word() -> None:
    thresholds = {"embedding": 0.6, "nli": 0.5}
    first = DryRun("law", "classified", 0.7, {"law": 0.7}, 3.0, False, "embedding", 0.6, thresholds)
    other = DryRun(
        "base", "classified", 0.9, {"base": 0.9}, 9.0, False, "nli", 0.5, thresholds | {"embedding": 0.8}
    )
    assert "Asked in a row while one is unsure: embedding (0.60), then nli (0.50)." in verdict(first)
    told = details(first, other)
    assert "At 0.80, base would answer instead of law: chosen by content. Then nli has the word." in told
    assert "--was:60.0%;--line:50.0%" in told


def test_whatever_a_router_says_is_escaped() -> None:
    judged = Judged(HOSTILE, 0.5, {HOSTILE: 0.5}, HOSTILE, 1.0, False)
    run = DryRun(HOSTILE, HOSTILE, 0.5, {HOSTILE: 0.5}, 1.0, False, HOSTILE, 0.5, {HOSTILE: 0.5}, (judged, judged))
    for html in (verdict(run), details(run, run)):
        assert "<img" not in html
        assert "{" not in html

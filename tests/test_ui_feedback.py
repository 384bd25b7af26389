"""What people say of answers: under the conversation and in the tab Feedback, over the real router."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, expect

from tests import browser
from tests.browser import LOOKS, needs_browser, ui_over
from tests.conftest import GENERAL, LABELS, LEGAL, Wire, chat, wired
from tests.servers import free_port
from ui.client.admin import AdminError
from ui.client.answer import Answer, Turn
from ui.client.connect import connect
from ui.client.decision import Decision
from ui.client.feedback import FeedbackError, Judged, Opinion, give, judged
from ui.parts.judge import Subject, asked, sent, subject_of
from ui.parts.judged import overview, table

KEY = "the tests' own"
HOSTILE = "<img src=x onerror=window.hacked=1> {{hacked}} ${hacked}"
COMMENT = f"It is about money {HOSTILE}"
JUDGE = "#ls-judge"
ROW = "#ls-feedback-said tbody tr"


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    folder = tmp_path_factory.mktemp("log")
    with wired(folder, decision_log="decisions.db", log_prompts=True, admin_key=digest) as one:
        yield one


@pytest.fixture(scope="module")
def url(wire: Wire) -> Iterator[str]:
    with ui_over(wire.url) as page_url:
        yield page_url


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    with browser.page_at(chromium, url) as loaded:
        browser.models(loaded)
        yield loaded


def logged(wire: Wire, number: int = 0) -> dict[str, Any]:
    """A decision of which somebody spoke, 0 the newest."""
    path = "/admin/decisions?feedback=1"
    return dict(wire.get(path, authorization=f"Bearer {KEY}")[1]["decisions"][number])


def unlocked(page: Page) -> None:
    """The tab, with the key."""
    browser.tab(page, "Feedback")
    page.locator("#ls-tab-feedback input[type=password]").fill(KEY)
    page.locator("#ls-tab-feedback").get_by_role("button", name="Unlock").click()
    page.locator(ROW).first.wait_for()


@needs_browser
def test_an_answer_is_judged_and_the_admin_sees_it(page: Page, wire: Wire) -> None:
    expect(page.locator(JUDGE)).to_be_hidden()
    browser.ask(page, f"{LEGAL} {HOSTILE}")
    form = page.locator(JUDGE)
    expect(page.locator("#ls-judge-about")).to_have_text("The answer by legal")
    form.get_by_text("Poor answer", exact=True).click()
    expect(page.locator("#ls-judge-better")).to_be_hidden()
    form.get_by_text("Wrong adapter", exact=True).click()
    send = form.get_by_role("button", name="Send")
    send.click()
    said = page.locator("#ls-judge-said")
    expect(said).to_have_text("Pick the model that should have answered.")
    form.get_by_label("Should have been").click()
    options = page.get_by_role("option")
    assert set(options.all_inner_texts()) == {"base (base)", "medical", "finance"}
    options.filter(has_text="finance").click()
    form.get_by_label("Comment").fill(COMMENT)
    send.click()
    expect(said).to_contain_text("Stored: poor answer, wrong adapter, should have been finance.")
    row = logged(wire)
    (stored,) = row["feedback"]
    assert (row["model"], stored["adapter"], stored["rating"]) == ("legal", "finance", "down")
    assert stored["comment"] == COMMENT

    expect(page.locator("#ls-judge-more")).to_be_hidden()
    assert form.get_by_role("radio", checked=True).count() == 0
    browser.ask(page, GENERAL)
    expect(page.locator("#ls-judge-about")).to_have_text("The answer by base")
    expect(said).to_be_hidden()
    form.get_by_text("Right adapter", exact=True).click()
    send.click()
    expect(said).to_contain_text("Stored: right adapter.")
    assert (logged(wire)["model"], logged(wire)["feedback"][0]["adapter"]) == ("base", "base")

    browser.tab(page, "Feedback")
    expect(page.locator("#ls-feedback")).to_be_hidden()
    unlocked(page)
    assert page.locator(ROW).count() == 2
    first, second = page.locator(ROW).all_inner_texts()
    assert "base" in first
    assert "right adapter" in first
    assert HOSTILE in second
    assert COMMENT in second
    assert "poor answer" in second
    assert page.locator(f"{ROW}:last-child .ls-pill").all_inner_texts() == ["legal", "finance"]
    bars = page.locator("#ls-feedback-shares .ls-bar").all_inner_texts()
    assert [bar.split("\n") for bar in bars] == [["base", "100 % of 1"], ["legal", "0 % of 1"]]
    assert page.locator("#ls-feedback img").count() == 0
    assert page.evaluate("window.hacked") is None
    page.locator("#ls-tab-feedback").get_by_role("button", name="Lock").click()
    expect(page.locator("#ls-feedback")).to_be_hidden()
    assert page.locator(ROW).count() == 0


@needs_browser
@pytest.mark.parametrize(("name", "look"), LOOKS.items())
def test_it_fits_its_window_and_can_be_used_by_all(
    chromium: Browser, url: str, wire: Wire, name: str, look: dict[str, Any]
) -> None:
    long = "an-adapter-with-a-name-that-no-window-is-wide-enough-for-and-that-goes-on"
    for number, (model, said) in enumerate(
        (
            ("legal", {"adapter": "finance", "rating": "down", "comment": "My bank, not my landlord."}),
            ("medical", {"rating": "up"}),
            ("finance", {"adapter": "finance", "comment": "Exactly the one I would have picked. " * 4}),
            ("legal", {"adapter": long, "comment": "w" * 120}),
        )
    ):
        ident = f"{name}-{number}"
        wire.post(body=chat(f"What about {LABELS[model]}?", model="auto" if number else model), x_request_id=ident)
        assert wire.post("/feedback", {"request_id": ident, **said})[0] == 200
    with browser.page_at(chromium, url, **look) as page:
        browser.models(page)
        browser.ask(page, LEGAL)
        page.locator(JUDGE).get_by_text("Wrong adapter", exact=True).click()
        page.get_by_label("Should have been").wait_for()
        browser.fits(page, f"judge-{name}")
        unlocked(page)
        browser.fits(page, f"feedback-{name}")


def test_what_cannot_be_stored_or_shown_is_said_in_words(wire: Wire, wiring: Any) -> None:
    async def of(url: str) -> tuple[str, str]:
        async with connect(url) as client:
            with pytest.raises(FeedbackError) as refused:
                await give(client, Opinion("nobody's", rating="up"))
            shown = await sent(client, Subject("nobody's", "legal"), "up", None, None, "so it is")
            assert str(refused.value) in str(shown[-1].value)
            assert shown[:-1] == [gr.skip()] * 7, "what was filled in stays"
            with pytest.raises(AdminError) as closed:
                await judged(client, "wrong" if url == wire.url else KEY, 5)
            return str(refused.value), str(closed.value)

    def said(url: str) -> tuple[str, str]:
        with ThreadPoolExecutor(1) as pool:  # Playwright has a loop in this thread
            return pool.submit(asyncio.run, of(url)).result()

    assert said(wire.url) == (
        "The router does not know this answer: its row in the decision log is gone, or belongs to another key.",
        f"This is not the admin key of the router at {wire.url}.",
    )
    with wiring(admin_key=hashlib.sha256(KEY.encode()).hexdigest()) as without:
        for sentence in said(without.url):
            assert "keeps no decision log (router.decision_log)" in sentence
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert said(nowhere) == (f"The router at {nowhere} does not answer. Is it running?",) * 2


def test_only_an_answer_that_is_complete_and_named_can_be_judged() -> None:
    whole = Answer("It is.", Decision("legal", "named", request_id="r"), "stop", done=True)
    assert subject_of((Turn("?", whole),)) == Subject("r", "legal")
    for answer in (
        Answer(),
        Answer("It", whole.decision),
        Answer("", whole.decision, done=True),
        Answer("It is.", Decision("legal", "named"), "stop", done=True),
    ):
        assert subject_of((Turn("?", whole), Turn("?", answer))) is None
    assert subject_of(()) is None
    turns, models = (Turn("?", whole),), (("auto", "auto"), ("legal", "legal"), ("b (base)", "b"))
    assert asked(turns, models, Subject("r", "legal")) == [gr.skip()] * 9, "a form that is being filled in stays"
    assert hash(turns)  # Gradio needs it, to see that a state has changed


def row(**fields: Any) -> Judged:
    return replace(Judged(time=0.0, text="", sha256="", model="a", better="", rating="", comment=""), **fields)


def test_the_table_escapes_and_says_what_is_not_known() -> None:
    rows = [
        row(**dict.fromkeys(("text", "model", "better", "rating", "comment"), HOSTILE)),
        row(sha256="1a2b3c4d5e6f"),
    ]
    html = table([*rows, row(time=float("inf"))]) + overview(rows)
    assert "<img" not in html
    assert "{" not in html
    assert "1a2b3c4d…" in html
    assert "the client named the model" in html
    assert "Nobody has said anything yet" in table(())
    assert overview(()) == ""


def test_shares_go_by_the_word_that_names_a_model_or_else_by_the_thumb() -> None:
    said = [row(better="a", rating="down"), row(better="b", rating="up"), row(rating="up"), row(comment="hm")]
    assert [one.right for one in said] == [True, False, True, None]
    assert "right 2 times of 3" in overview(said)

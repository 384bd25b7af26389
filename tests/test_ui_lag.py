"""The tab LAG in a real browser, over the real router and an engine that tells which adapter gave which token."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import browser
from tests.browser import LOOKS, needs_browser, ui_over
from tests.conftest import Wire, ask, wired
from ui.client.attribution import Explained, Token, read
from ui.parts.tokens import by_layer, coloured, legend

HOSTILE = "<img src=x onerror=window.hacked=1> {{hacked}} ${hacked}"
ANSWER = (
    "He", " must", " protect", " the", " deposit", " within", " thirty", " days", ",", " and", " he", " must",
    " tell", " the", " ten", "ant", " where", " it", " is", " held", ".", "\n", "Inter", "est", " on", " it",
    " belongs", " to", " whoever", " paid", " it", ".", "</s>",
)  # fmt: skip
PROMPT = ("<s>", "[INST]", " My", " landlord", " took", " a", " deposit", ".", " How", " soon", "?", "[/INST]")
NAMES = ("legal", "finance", "medical")
LAYERS = 32
QUESTION = "#ls-lag-question textarea"
TOKEN = "#ls-lag-answer > * .ls-tokens [role=button]"


def shares(at: int, layer: int) -> dict[str, float]:
    """Of the four projections of a layer: some for the adapter that this token leans to, the rest for another."""
    lead, seed = NAMES[(at // 5 + at // 11) % 3], 7 * at + 3 * layer
    votes = (2, 3, 4, 1, 3, 3)[seed % 6]
    other = NAMES[(NAMES.index(lead) + 1 + seed % 2) % 3]
    return {lead: votes / 4} | ({other: 1 - votes / 4} if votes < 4 else {})


def told(tokens: tuple[str, ...] = ANSWER, layers: int = LAYERS) -> dict[str, Any]:
    """As the engine tells it: of the prompt, half came from its cache."""
    answer = list[dict[str, Any]]()
    for at, text in enumerate(tokens):
        by = [shares(at, layer) for layer in range(layers)]
        votes = {name: sum(one.get(name, 0) for one in by) / layers for name in NAMES}
        best = max(votes, key=lambda name: votes[name])
        answer.append({"text": text, "adapter": f"{best}@1f2e3d4c", "share": votes[best], "layers": by})
    whole = [
        {name: sum(one["layers"][layer].get(name, 0) for one in answer) / len(answer) for name in NAMES}
        for layer in range(layers)
    ]
    cached: dict[str, Any] = {"adapter": None, "share": None}
    prompt = [
        {"text": text} | (cached if at < 6 else {"adapter": "legal@1f2e3d4c", "share": 0.7})
        for at, text in enumerate(PROMPT)
    ]
    return {
        "choices": [
            {
                "adapters": {name: sum(one[name] for one in whole) / layers for name in NAMES},
                "layers": [{"layer": f"model.layers.{n}", "adapters": one} for n, one in enumerate(whole)],
                "prompt": prompt,
                "tokens": answer,
            }
        ]
    }


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with wired(tmp_path_factory.mktemp("lag"), lag={"lag": {"library": "all"}}) as one:
        yield one


@pytest.fixture(scope="module")
def url(started: Wire) -> Iterator[str]:
    with ui_over(started.url) as page_url:
        yield page_url


@pytest.fixture
def wire(started: Wire) -> Wire:
    """With an engine that tells all."""
    started.engine.told = {"c?layers=true": (200, told())}
    started.engine.also = {}
    return started


@pytest.fixture(scope="module")
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """For tests that leave it as they found it."""
    with browser.page_at(chromium, url) as loaded:
        opened(loaded)
        yield loaded


def opened(page: Page) -> None:
    browser.tab(page, "LAG")
    page.locator(QUESTION).wait_for()


def asked(page: Page, question: str = "How soon must my landlord protect my deposit?") -> None:
    """Sent: for a moment after an answer the page still takes no question, and the old answer stays."""
    page.fill(QUESTION, question)
    page.evaluate("document.querySelectorAll('#ls-lag-answer *').forEach(part => part.dataset.old = 'yes')")
    old = page.locator('#ls-lag-answer [class^="ls-"][data-old]')
    for _ in range(10):
        page.press(QUESTION, "Enter")
        with contextlib.suppress(AssertionError):
            expect(old).to_have_count(0, timeout=2000)
            return
    raise AssertionError(f"not sent: {question}")


@needs_browser
def test_tokens_are_coloured_and_each_tells_its_layers(page: Page, wire: Wire) -> None:
    asked(page)
    tokens = page.locator(TOKEN)
    expect(tokens).to_have_count(len(ANSWER))
    assert wire.engine.asked[-1] == "c?layers=true"
    assert "".join(tokens.all_inner_texts()).replace("↵", "") == "".join(ANSWER)
    of = [token["adapter"].partition("@")[0] for token in told()["choices"][0]["tokens"]]
    assert [title.partition(",")[0] for title in tokens.evaluate_all("all => all.map(one => one.title)")] == of
    colours = tokens.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len({colours[of.index(name)] for name in set(of)}) == len(set(of)) > 1

    names = page.locator("#ls-lag-shares .ls-name").all_inner_texts()
    assert set(names) == set(NAMES)
    assert page.locator(".ls-heat td").count() == len(NAMES) * LAYERS

    tokens.nth(4).click()
    heading = page.locator("#ls-lag-picked h2")
    expect(heading).to_have_text(f"Token 5 of {len(ANSWER)}: deposit")
    expect(page.locator(".ls-stack")).to_have_count(LAYERS)
    first = told()["choices"][0]["tokens"][4]["layers"][0]
    assert page.locator(".ls-words").first.inner_text() == ", ".join(
        f"{name} {share:.0%}".replace("%", " %") for name, share in sorted(first.items(), key=lambda one: -one[1])
    )
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(heading).to_have_text(f"Token 6 of {len(ANSWER)}: within")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(heading).to_contain_text(f"Token {len(ANSWER)} of {len(ANSWER)}")
    assert page.locator("[aria-pressed=true]").inner_text() == "</s>"
    assert page.locator(f"{TOKEN}[tabindex='0']").count() == 1
    page.get_by_text(f"The prompt, {len(PROMPT)} tokens").click()
    assert page.locator(".ls-prompt .ls-unknown").count() == 6


@needs_browser
@pytest.mark.parametrize(("name", "look"), LOOKS.items())
def test_it_fits_its_window_and_can_be_used_by_all(
    chromium: Browser, url: str, wire: Wire, name: str, look: dict[str, Any]
) -> None:
    long = "an-adapter-with-a-name-that-no-window-is-wide-enough-for-and-that-goes-on"
    choice = told()["choices"][0]
    choice["adapters"][long] = 0.004
    choice["layers"][0]["adapters"][long] = 0.25
    choice["tokens"][4]["layers"][0] = {long: 0.5, "legal": 0.5}
    wire.engine.told = {"c?layers=true": (200, {"choices": [choice]})}
    with browser.page_at(chromium, url, **look) as page:
        opened(page)
        asked(page)
        page.locator(TOKEN).nth(4).click()
        page.locator("#ls-lag-picked h2").wait_for()
        browser.fits(page, f"lag-{name}")


@needs_browser
def test_hostile_tokens_stay_text(page: Page, wire: Wire) -> None:
    choice = told((HOSTILE, " ok"), layers=2)["choices"][0]
    choice["adapters"] = {HOSTILE: 1.0}
    choice["layers"] = [{"layer": HOSTILE, "adapters": {HOSTILE: 1.0}}] * 2
    choice["tokens"][0] |= {"adapter": HOSTILE, "layers": [{HOSTILE: 1.0}] * 2}
    wire.engine.told = {"c?layers=true": (200, {"choices": [choice]})}
    asked(page, HOSTILE)
    expect(page.locator(TOKEN).first).to_have_text(HOSTILE)
    page.locator(TOKEN).first.click()
    expect(page.locator(".ls-quote")).to_have_text(HOSTILE)
    assert HOSTILE in page.locator("#ls-lag-shares").inner_text()
    assert page.locator("#ls-lag img").count() == 0
    assert page.evaluate("window.hacked") is None


@needs_browser
def test_an_answer_stays_where_nobody_can_tell(page: Page, wire: Wire) -> None:
    wire.engine.told = {}
    asked(page)
    note = page.locator("#ls-lag-answer .ls-note")
    expect(note).to_contain_text("Nobody can say which adapter gave which token: the engine cannot tell")
    assert page.locator(".ls-lag-text").inner_text() == "word0 word1 word2 word3 word4 "
    wire.engine.also = {"test": "break"}
    asked(page)
    expect(page.locator("#ls-lag-answer .ls-error")).to_contain_text("The answer broke off")
    expect(note).to_contain_text("this one is not")
    assert page.locator(".ls-lag-text").inner_text().startswith("word0")
    wire.engine.also = {"test": "status-400"}
    asked(page)
    expect(page.locator("#ls-lag-answer .ls-error")).to_contain_text("was refused (400)")


@needs_browser
def test_an_answer_can_be_stopped(page: Page, wire: Wire) -> None:
    wire.engine.also = {"test": "stall"}
    wire.engine.cancelled.clear()
    asked(page)
    expect(page.locator(".ls-lag-text")).to_contain_text("word20")
    page.locator("#ls-lag-question .stop-button").click()
    expect(page.locator("#ls-lag-answer .ls-note")).to_contain_text("Stopped by you.")
    assert "word20" in page.locator(".ls-lag-text").inner_text()
    assert wire.engine.cancelled.wait(5)
    wire.engine.also = {}
    asked(page)
    expect(page.locator(TOKEN)).to_have_count(len(ANSWER))


@needs_browser
def test_a_stack_without_such_a_model_is_told_how_to_have_one(page: Page, wire: Wire) -> None:
    wire.engine.models.remove("lag")
    try:
        deadline = time.monotonic() + 10
        while "lag" in str(ask("GET", f"{wire.url}/v1/models")[1]) and time.monotonic() < deadline:
            time.sleep(0.1)
        page.reload()
        browser.tab(page, "LAG")
        expect(page.locator("#ls-lag-none")).to_contain_text("lag: {library: all}")
        expect(page.locator(QUESTION)).to_be_hidden()
    finally:
        wire.engine.models.append("lag")


def test_html_escapes_whatever_it_is_given() -> None:
    token = Token(HOSTILE, HOSTILE, 2.0, ({HOSTILE: float("nan")},))
    explained = Explained({HOSTILE: -1.0}, ((HOSTILE, {HOSTILE: 1.0}),), (token,), (token,))
    html = coloured(explained) + legend(explained) + by_layer(explained, 0)
    assert "<img" not in html
    assert "{" not in html


def test_what_is_not_told_by_layer_says_so() -> None:
    choice = told()["choices"][0]
    choice["tokens"][1]["layers"] = None
    explained = read({"choices": [choice]})
    assert "were not told" in by_layer(explained, 1)
    assert "Pick a token" in by_layer(explained, len(ANSWER))

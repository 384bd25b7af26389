"""The tab Adapters, and the admin key: over a real router and a real manager; only the engine is a fake."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeVar

import openai
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from adapters import Adapter as Given
from serve.life.loader import Refused
from serve.life.prove import Proof
from tests import browser
from tests.browser import LAPTOP, PHONE, needs_browser, page_at, ui_over
from tests.conftest import chat
from tests.fake_router import HOSTILE
from tests.managed import KEY, ROOTS, Managed, managed
from tests.recorder import Recorder, recorded
from tests.servers import free_port
from tests.stack import ADMIN_KEY, DEMO, Running
from ui.client import admin
from ui.client.adapter import Adapter, Form
from ui.client.admin import AdminError
from ui.client.connect import connect
from ui.client.metrics import Sample, read
from ui.parts.cards import cards
from ui.tabs.adapters import EVERY_S

LONG = "an-adapter-whose-name-is-far-longer-than-any-card-is-wide-and-then-some"
T = TypeVar("T")
TOLD = "#ls-adapters-told"
SAID = "#ls-adapters-said"


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    with managed(tmp_path_factory.mktemp("adapters")) as up:
        yield up


@pytest.fixture(scope="module")
def wire(router: Managed) -> Iterator[Recorder]:
    with ui_over(router.url) as url, recorded(url) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def page(chromium: Browser, wire: Recorder) -> Iterator[Page]:
    """The tab, unlocked."""
    with page_at(chromium, wire.url, **LAPTOP) as loaded:
        loaded.clock.install()  # before the tab begins to beat, so that time can be skipped
        unlock(loaded)
        yield loaded


@pytest.fixture
def guest(router: Managed) -> Iterator[str]:
    """A name that is gone afterwards, and an engine that is well again."""
    yield "guest"
    router.shelf.faults.clear()
    router.shelf.go.set()
    router.shelf.proof = Proof(3.0, 1e-6, 2e-6)
    if any(one["name"] == "guest" for one in router.manager.listed()["adapters"]):
        router.manager.remove("guest").result(10)


def tab(page: Page, name: str) -> Locator:
    """Open it; what is in it."""
    browser.tab(page, name)
    return page.locator(f"#ls-tab-{name.lower()}")


def unlock(page: Page, key: str = KEY) -> None:
    """Type the key where it is asked for, and wait for the cards."""
    field = tab(page, "Adapters").get_by_label("Admin key")
    field.fill(key)
    field.press("Enter")
    page.locator(".ls-card").first.wait_for()


def card(page: Page, name: str) -> Locator:
    return page.locator(f".ls-card[aria-label={json.dumps(name)}]")


def told(page: Page, text: str | re.Pattern[str], timeout_s: float = 20) -> None:
    expect(page.locator(TOLD)).to_contain_text(text, timeout=timeout_s * 1000)


def said(page: Page, text: str, timeout_s: float = 20) -> None:
    """By the form, and in sight."""
    expect(page.locator(SAID)).to_contain_text(text, timeout=timeout_s * 1000)
    expect(page.locator(SAID)).to_be_in_viewport(ratio=0.9)


# --- the key ----------------------------------------------------------------------------------------------------


@needs_browser
def test_the_key_is_typed_once_kept_here_and_forgotten_when_locked(
    chromium: Browser,
    wire: Recorder,
    router: Managed,
) -> None:
    plain: dict[str, Any] = {"extra_http_headers": {"accept-encoding": "identity"}}
    with page_at(chromium, wire.url, **LAPTOP, **plain) as page:
        adapters = tab(page, "Adapters")
        expect(adapters).to_contain_text("shown to the router's admin alone")
        field = adapters.get_by_label("Admin key")
        assert field.get_attribute("type") == "password"
        field.fill("not the key")
        adapters.get_by_role("button", name="Unlock").click()
        expect(adapters.get_by_role("alert")).to_have_text(
            f"This is not the admin key of the router at {router.url}."
        )
        expect(field).to_have_value("")
        assert page.locator(".ls-card").count() == 0
        unlock(page)
        expect(adapters.get_by_role("alert")).to_have_count(0)
        dashboard = tab(page, "Dashboard")
        expect(dashboard).to_contain_text("Unlocked with the admin key")
        dashboard.get_by_role("button", name="Lock", exact=True).click()
        expect(dashboard).to_contain_text("the key shows them here")
        tab(page, "Adapters")
        expect(field).to_be_visible()
        expect(page.locator(".ls-card")).to_have_count(0)
        assert KEY not in page.content()
    assert b"medicine, health" in wire.heard  # it is legible, so the key would be
    assert KEY.encode() not in wire.heard


def done(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def refusal(work: Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Any]], url: str) -> str:
    """What an admin is told; "" where nothing is wrong."""
    async with connect(url) as client:
        try:
            await work(client)
        except AdminError as error:
            return str(error)
    return ""


def test_the_key_is_checked_in_words(router: Managed, wiring: Callable[..., Any]) -> None:
    def said(url: str, key: str) -> str:
        return done(refusal(lambda client: admin.check(client, key), url))

    assert said(router.url, KEY) == ""
    assert "is not the admin key" in said(router.url, "other")
    assert said(router.url, "schlüssel") == "A key has letters, digits and signs of ASCII alone."
    assert "does not answer" in said(f"http://127.0.0.1:{free_port()}", KEY)
    with wiring() as bare:
        assert said(bare.url, KEY) == admin.CLOSED
        assert done(refusal(lambda client: admin.listed(client, ""), bare.url)) == admin.CLOSED


def test_without_a_manager_the_tab_says_so(wiring: Callable[..., Any]) -> None:
    with wiring(admin_key=hashlib.sha256(KEY.encode()).hexdigest()) as bare:
        said = done(refusal(lambda client: admin.listed(client, KEY), bare.url))
    assert said == "Refused: nobody manages adapters here: python -m serve does"


# --- cards ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(router: Managed) -> Iterator[None]:
    """One of the adapters cannot be loaded."""

    def refuses() -> None:
        raise Refused("every lora_B is zero, so it does nothing (base_model.model.layers.0.self_attn.q_proj)")

    router.shelf.faults[LONG] = refuses
    with pytest.raises(Refused):
        router.manager.add(LONG, Given(path="some/guest", label="roses, lawns, " * 20)).result(10)
    for _ in range(3):
        assert router.post(body=chat("My landlord wants to evict me. What are my rights?"))[0] == 200
    yield
    router.manager.remove(LONG).result(10)


def looks(page: Page, name: str) -> None:
    """With one that serves and one that is broken, its name too long for any window."""
    expect(card(page, "legal").locator(".ls-state")).to_have_text("serving")
    expect(card(page, LONG)).to_contain_text("every lora_B is zero")
    browser.fits(page, f"adapters-{name}")


@needs_browser
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_how_the_tab_looks_on_a_laptop(page: Page, broken: None, scheme: Literal["dark", "light"]) -> None:  # noqa: ARG001
    page.emulate_media(color_scheme=scheme)
    expect(page.locator("body.dark")).to_have_count(int(scheme == "dark"))
    looks(page, f"laptop-{scheme}")


@needs_browser
def test_how_the_tab_looks_on_a_phone(chromium: Browser, wire: Recorder, broken: None) -> None:  # noqa: ARG001
    with page_at(chromium, wire.url, **PHONE) as page:
        unlock(page)
        looks(page, "phone")


@needs_browser
def test_a_card_tells_what_the_router_knows(page: Page, router: Managed) -> None:
    before = router.post(body=chat("hello", model="finance"))[0]
    assert before == 200
    router.shelf.places["finance@1"] |= {"slot": None, "requests": 2}
    finance = card(page, "finance")
    expect(finance).to_contain_text("host memory", timeout=10_000)
    shown = {
        one.locator("dt").inner_text(): one.locator("dd").inner_text() for one in finance.locator("dl div").all()
    }
    counted, _ = done(counts(router.url))
    assert shown.pop("First byte").endswith(("ms", "s"))
    assert shown == {
        "Version": "1", "Where": "host memory", "Rank": "8", "Size": "1.23 MB", "Under way": "2",
        "Requests": f"{counted.requests['finance']:.0f}", "Errors": "0",
    }  # fmt: skip
    expect(finance).to_contain_text("its answers are 3 nats from the base's, they move by 1e-06 in a mixed batch")


async def counts(url: str) -> tuple[Sample, tuple[Adapter, ...]]:
    """As the page asks for them."""
    async with connect(url) as client:
        return await read(client, KEY), (await admin.listed(client, KEY))[0]


@needs_browser
def test_nobody_is_asked_while_nobody_looks(page: Page, router: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def held() -> dict[str, Any]:
        asked.append(time.monotonic())
        return router.shelf.places

    def more() -> int:
        page.wait_for_timeout(500)  # what is under way ends
        before = len(asked)
        page.clock.fast_forward(int(2 * EVERY_S * 1000))
        page.wait_for_timeout(1000)
        return len(asked) - before

    monkeypatch.setattr(router.shelf, "held", held)
    assert more() == 1
    tab(page, "Chat")
    assert more() == 0
    tab(page, "Adapters")
    assert more() == 1
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    assert more() == 0
    page.evaluate("delete document.hidden")


# --- what can be done -------------------------------------------------------------------------------------------


@needs_browser
def test_an_adapter_is_added_updated_and_removed(page: Page, router: Managed, guest: str) -> None:
    begin_to_add(page, router, guest)
    expect(card(page, guest).locator(".ls-state")).to_have_text("loading", timeout=10_000)
    router.shelf.go.set()
    said(page, "guest serves, version 1. It took")
    expect(card(page, guest).locator(".ls-state")).to_have_text("serving")
    expect(box(page, "Name")).to_be_hidden()

    card(page, guest).get_by_role("button", name="Update").click()
    expect(box(page, "Label")).to_have_value("cooking, recipes")
    expect(box(page, "Path")).to_have_value(ROOTS)
    fill(page, Label="cooking, kitchens")
    page.get_by_role("button", name="Load, test and serve it").click()
    said(page, "guest serves")
    expect(card(page, guest)).to_contain_text("cooking, kitchens")
    assert router.manager.known(guest) == {"path": ROOTS, "label": "cooking, kitchens"}

    remove = card(page, guest).get_by_role("button", name="Remove")
    remove.focus()
    remove.press("Enter")
    expect(card(page, guest)).to_contain_text("Remove guest? Its last answer ends")
    card(page, guest).get_by_role("button", name="Keep").click()
    expect(card(page, guest).get_by_role("button", name="Self-test")).to_be_visible()
    assert router.manager.known(guest)
    card(page, guest).get_by_role("button", name="Remove").click()
    card(page, guest).locator("button.ls-danger").click()
    told(page, "guest is removed.")
    expect(card(page, guest)).to_have_count(0)
    assert not router.manager.known(guest)


@needs_browser
def test_what_is_typed_while_another_is_added_stays(page: Page, router: Managed, guest: str) -> None:
    begin_to_add(page, router, guest)
    card(page, "legal").get_by_role("button", name="Update").click()
    expect(box(page, "Name")).to_have_value("legal")
    fill(page, Label="law, typed meanwhile")
    router.shelf.go.set()
    expect(card(page, guest).locator(".ls-state")).to_have_text("serving", timeout=10_000)
    said(page, "guest serves, version 1. It took")
    expect(box(page, "Label")).to_have_value("law, typed meanwhile")
    expect(box(page, "Name")).to_have_value("legal")
    page.locator("#ls-adapters-form").get_by_role("button", name="Cancel").click()
    expect(box(page, "Name")).to_be_hidden()


def begin_to_add(page: Page, router: Managed, guest: str) -> None:
    """It is being loaded until `router.shelf.go` is set."""
    router.shelf.go.clear()
    page.get_by_role("button", name="Add an adapter").click()
    fill(page, Name=guest, Path=ROOTS, Label="cooking, recipes")
    page.get_by_role("button", name="Load, test and serve it").click()
    said(page, "so far")


def fill(page: Page, **fields: str) -> None:
    for label, value in fields.items():
        box(page, label).fill(value)


def box(page: Page, label: str) -> Locator:
    return page.locator("#ls-adapters-form").get_by_label(label, exact=True)


@needs_browser
def test_update_leads_to_the_form_and_cancel_back_to_adding(chromium: Browser, wire: Recorder) -> None:
    with page_at(chromium, wire.url, **PHONE) as page:
        unlock(page)
        form = page.locator("#ls-adapters-form")
        expect(form).not_to_be_in_viewport()
        card(page, "legal").get_by_role("button", name="Update").click()
        expect(box(page, "Name")).to_be_focused()
        expect(box(page, "Name")).to_be_in_viewport(ratio=1)
        expect(box(page, "Name")).to_have_value("legal")
        form.get_by_role("button", name="Cancel").click()
        heading = form.get_by_role("button", name="Add an adapter")
        expect(heading).to_be_focused()
        heading.click()
        expect(box(page, "Name")).to_have_value("")
        expect(box(page, "Path")).to_have_value("")
        expect(form.get_by_role("button", name="Cancel")).to_have_count(0)


@needs_browser
def test_what_is_refused_is_told_and_the_form_stays(page: Page, router: Managed, guest: str) -> None:
    def refuses() -> None:
        raise Refused(f"rank 64 {HOSTILE}")

    router.shelf.faults[guest] = refuses
    page.get_by_role("button", name="Add an adapter").click()
    fill(page, Name=guest, Path=ROOTS, Label=f"x {HOSTILE}")
    send = page.get_by_role("button", name="Load, test and serve it")
    send.click()
    said(page, f"Adding guest: Refused: rank 64 {HOSTILE}")
    expect(box(page, "Path")).to_have_value(ROOTS)
    expect(card(page, guest).locator(".ls-state")).to_have_text("broken")
    expect(card(page, guest)).to_contain_text(HOSTILE)
    expect(card(page, guest).locator(".ls-card-label")).to_have_text(f"x {HOSTILE}")
    assert page.locator(".ls-card img, #ls-adapters-said img").count() == 0
    assert page.evaluate("window.hacked") is None
    fill(page, Path="/etc")
    send.click()
    said(page, "is not below any of them")


@needs_browser
def test_a_self_test_says_what_it_found(page: Page, router: Managed, guest: str) -> None:  # noqa: ARG001
    router.shelf.go.clear()
    button = card(page, "legal").get_by_role("button", name="Self-test")
    button.focus()
    button.press("Enter")
    told(page, re.compile(r"Self-test of legal: \d+ s so far"))
    router.shelf.go.set()
    told(page, "legal passed: its answers are 3 nats from the base's")
    router.shelf.proof = Proof(0.0, 0.0, 0.0, problem="it does nothing")
    card(page, "legal").get_by_role("button", name="Self-test").click()
    told(page, "legal failed: it does nothing (its answers are 0 nats from the base's")
    expect(card(page, "legal")).to_contain_text("its last self-test failed: it does nothing")
    expect(card(page, "legal").locator(".ls-state")).to_have_text("serving")
    router.shelf.proof = Proof(3.0, 1e-6, 2e-6)
    router.manager.test("legal").result(10)


@needs_browser
def test_who_is_on_a_button_stays_on_it_when_the_cards_are_drawn_anew(page: Page, router: Managed) -> None:
    card(page, "medical").get_by_role("button", name="Update").focus()
    router.shelf.places["legal@1"]["slot"] = 7
    expect(card(page, "legal")).to_contain_text("slot 7", timeout=10_000)
    expect(card(page, "medical").get_by_role("button", name="Update")).to_be_focused()


@needs_browser
def test_what_was_seen_stays_while_the_router_is_down(page: Page, router: Managed) -> None:
    router.stop()
    try:
        problem = page.locator("#ls-adapters-problem")
        expect(problem).to_contain_text(f"The router at {router.url} does not answer", timeout=15_000)
        expect(problem).to_contain_text(re.compile(r"What stands below was read \d+ s ago"))
        expect(card(page, "legal")).to_be_visible()
        card(page, "legal").get_by_role("button", name="Self-test").click()
        told(page, "Self-test of legal: The router at")
    finally:
        router.start()
    expect(problem).to_be_hidden(timeout=15_000)
    expect(card(page, "legal")).to_be_visible()


@needs_browser
def test_a_real_adapter_is_added_tested_and_removed(running: Running, chromium: Browser) -> None:
    folder = running.roots / "page"
    shutil.copytree(DEMO / "adapters" / "medical", folder)
    with page_at(chromium, running.page_url, **LAPTOP) as page:
        unlock(page, ADMIN_KEY)
        page.get_by_role("button", name="Add an adapter").click()
        fill(page, Name="page", Path=str(folder), Label="gardening, roses, lawns")
        page.get_by_role("button", name="Load, test and serve it").click()
        said(page, "page serves, version", 60)
        expect(card(page, "page")).to_contain_text("16")  # its rank
        card(page, "page").get_by_role("button", name="Self-test").click()
        told(page, "page passed: its answers are", 60)
        card(page, "page").get_by_role("button", name="Remove").click()
        card(page, "page").locator("button.ls-danger").click()
        told(page, "page is removed.", 60)
        expect(card(page, "page")).to_have_count(0)
        assert card(page, "legal").count() == 1


# --- without a browser ------------------------------------------------------------------------------------------


def test_whatever_a_card_is_given_stays_text() -> None:
    proof = {"differs": 1.0, "mixed": None, "problem": HOSTILE}
    hostile = Adapter.of(
        dict.fromkeys(("name", "state", "reason", "version", "label", "slot", "rank"), HOSTILE) | {"proof": proof}
    )
    html = cards([hostile], [hostile], Sample(), HOSTILE)
    assert "<img" not in html
    assert "{" not in html
    assert "$" not in html


def test_a_virtual_model_is_nowhere_and_has_no_size() -> None:
    own, mixed = cards([Adapter("legal", version="1")], [Adapter("lag", version="1")], Sample(), "").split(
        "Virtual"
    )
    for name in ("Where", "Rank", "Size"):
        assert name in own
        assert name not in mixed
    assert "Requests" in mixed


def test_the_form_asks_for_what_differs() -> None:
    known = Adapter.of(
        {
            "name": "legal", "path": "a/b", "label": "law", "tags": {"audience": ["patient", "nurse"]},
            "sampling": {"temperature": 0.2, "top_p": None}, "disclaimer": None, "allow_pickle": False,
        }
    )  # fmt: skip
    before = Form.of(known)
    assert before.tags == "audience=patient, audience=nurse"
    assert before.wish(before) == {"name": "legal"}
    wanted = replace(before, label="courts", tags="", sampling='{"top_p": 1}', versions="v1=90, v2 = 10")
    assert wanted.wish(before) == {
        "name": "legal", "label": "courts", "tags": {}, "sampling": {"top_p": 1}, "versions": {"v1": 90, "v2": 10},
    }  # fmt: skip
    assert Form("new", "x", label=" ").wish(Form()) == {"name": "new", "path": "x", "label": None}
    assert Form.of(Adapter.of({"name": "legal@v1", "path": "a/b/v1"})) == Form("legal")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"tags": "audience"}, "Tags: write NAME=VALUE, several with commas between them; this is not: audience"),
        ({"versions": "v1=much"}, "Versions: a weight is a number; this is not: much"),
        ({"sampling": "cold"}, 'Sampling: write JSON such as {"temperature": 0.2}'),
    ],
)
def test_a_field_that_cannot_be_read_is_one_clear_line(typed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Form("a", **typed).wish(Form())

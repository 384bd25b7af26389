"""Conversations on the page's side: who looks at them, when they end, how much is kept; no browser needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.fake_router import ANSWER, FakeRouter
from tests.servers import serving
from ui.client.answer import Answer, Settings, Turn
from ui.client.connect import connect
from ui.client.decision import Decision
from ui.tabs.chat import store
from ui.tabs.chat.kept import Kept, read, written
from ui.tabs.chat.screen import Screen
from ui.tabs.chat.store import LEFT, LOST, STOPPED, Conversation, Store

SAID = Turn("What is law?", Answer("Rules.", Decision("legal", "classified", 0.9), "stop", done=True))
Story = Callable[[Store, FakeRouter], Coroutine[Any, Any, None]]


def told(story: Story, abandoned_s: float = 60) -> None:
    """Run a story over a store and a router of its own."""
    router = FakeRouter(word_s=0.04)

    async def run(url: str) -> None:
        async with connect(url) as client:
            await story(Store(client, abandoned_s), router)

    with serving(router) as url:
        asyncio.run(run(url))


def asking(here: Store, question: str = "What is law?") -> Conversation:
    conversation = here.open(Kept())
    here.answer(conversation, (*conversation.turns, Turn(question)), Settings())
    return conversation


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


def test_an_answer_goes_on_without_anybody_and_is_found_again() -> None:
    async def story(here: Store, router: FakeRouter) -> None:
        conversation = asking(here)
        async for turns in here.follow(conversation, "page"):
            if turns[-1].answer.text:
                break  # the browser reloads
        seen = [turns[-1].answer async for turns in here.follow(here.open(Kept(conversation.id)), "page, again")]
        assert (seen[-1].text, seen[-1].done, len(router.requests)) == (ANSWER, True, 1)
        assert len(seen) > 2

    told(story)


def test_an_answer_that_nobody_looks_at_ends_after_a_while_and_the_router_knows() -> None:
    async def story(here: Store, router: FakeRouter) -> None:
        conversation = asking(here, "please hold")
        looking = here.follow(conversation, "page")
        await anext(looking)
        await looking.aclose()
        assert conversation.task
        await until(lambda: conversation.task is None)
        assert conversation.turns[-1].answer.note == LEFT
        await until(lambda: router.given_up == 1)

    told(story, abandoned_s=0.3)


def test_whoever_comes_back_has_all_of_the_time_again() -> None:
    async def story(here: Store, _: FakeRouter) -> None:
        conversation = asking(here, "please hold")
        for _turn in range(4):  # in all more than it takes to be forgotten
            looking = here.follow(conversation, "page")
            await anext(looking)
            await asyncio.sleep(0.1)
            await looking.aclose()
            await asyncio.sleep(0.1)
        assert conversation.task
        await until(lambda: conversation.task is None)
        assert conversation.turns[-1].answer.note == LEFT

    told(story, abandoned_s=0.3)


def test_whoever_leaves_ends_an_answer_unless_others_look_at_it() -> None:
    async def story(here: Store, router: FakeRouter) -> None:
        conversation = asking(here, "please hold")
        one, other = here.follow(conversation, "one"), here.follow(conversation, "other")
        await anext(one)
        await anext(other)
        await until(lambda: bool(conversation.turns[-1].answer.text))
        here.leave(conversation, "one")
        assert conversation.task
        await one.aclose()
        here.leave(conversation, "other")
        await until(lambda: router.given_up == 1)
        assert conversation.turns[-1].answer.note == STOPPED
        await other.aclose()

    told(story)


def test_a_new_answer_takes_the_place_of_the_one_under_way() -> None:
    async def story(here: Store, router: FakeRouter) -> None:
        conversation = asking(here, "please hold")
        await until(lambda: bool(conversation.turns[-1].answer.text))
        here.answer(conversation, (Turn("Something else?"),), Settings())
        await until(lambda: conversation.task is None)
        assert [turn.question for turn in conversation.turns] == ["Something else?"]
        assert (conversation.turns[0].answer.text, router.given_up) == (ANSWER, 1)

    told(story)


@pytest.mark.parametrize("bound", ["MAX_CONVERSATIONS", "MAX_CHARACTERS", "MAX_AGE_S"])
def test_what_is_kept_is_bounded_and_the_oldest_goes_first(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "MAX_CONVERSATIONS": 2,
        "MAX_CHARACTERS": 2 * len(SAID.question + SAID.answer.text),
        "MAX_AGE_S": -1.0,
    }
    monkeypatch.setattr(store, bound, small[bound])

    async def story(here: Store, _: FakeRouter) -> None:
        growing = asking(here, "please hold")
        ids = [here.open(Kept(turns=(SAID,))).id for _ in range(4)]
        left = [id for id in ids if here.open(Kept(id)).turns]
        assert left == ids[len(ids) - len(left) :], "not the oldest went"
        assert len(left) < 4
        assert here.open(Kept(growing.id)) is growing, "one that is being answered is never dropped"
        here.stop(growing)

    told(story)


def test_a_copy_comes_back_as_it_was_and_what_was_growing_says_that_it_broke_off() -> None:
    growing = Turn("And then?", replace(SAID.answer, done=False))
    sent = {"id": "0" * 32, "turns": [written(SAID), written(growing)]}
    kept = read(sent)
    assert kept.turns == (SAID, growing)

    async def story(here: Store, _: FakeRouter) -> None:
        first, second = here.open(kept).turns
        assert first is kept.turns[0]
        assert (second.answer.text, second.answer.done, second.answer.note) == ("Rules.", True, LOST)

    told(story)


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "x",
        {"id": "../../x", "turns": []},
        {"id": "0" * 32, "turns": "x"},
        {"id": "0" * 32, "turns": [{"question": 1}]},
        {"id": "0" * 32, "turns": [{"question": "x" * 6_000_000}]},
    ],
)
def test_what_is_no_conversation_becomes_a_new_one(sent: Any) -> None:
    kept = read(sent)
    assert kept.turns == ()
    assert kept.id != "0" * 32
    assert read(sent).id != kept.id


def test_what_was_said_is_drawn_once() -> None:
    made: list[str] = []
    screen = Screen("0" * 32, lambda html: made.append(html) or {"html": html})  # type: ignore[func-returns-value]
    growing = Turn("And then?")
    screen.draw((SAID, growing), 0)
    first, copy = screen.draw((SAID, replace(growing, answer=Answer("Well"))), 0)
    assert len(made) == 3
    assert [message["role"] for message in first] == ["user", "assistant"] * 2
    assert [turn["answer"]["text"] for turn in copy["turns"]] == ["Rules.", "Well"]
    cut, _ = screen.draw((growing,), 0)
    assert len(cut) == 2

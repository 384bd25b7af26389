"""An answer as the page hears it, over a small real router."""

from __future__ import annotations

import asyncio

import pytest

from tests.fake_router import ANSWER, FakeRouter
from tests.servers import serving
from ui.client.answer import REDRAW_S, Answer, Settings, Turn, ask
from ui.client.connect import connect


async def heard(url: str, model: str) -> list[Answer]:
    async with connect(url) as client:
        return [answer async for answer in ask(client, (Turn("hello"),), Settings(model))]


@pytest.mark.parametrize("model", ["auto", "legal"])
@pytest.mark.parametrize("word_s", [0, REDRAW_S / 5])
def test_however_fast_it_comes_its_end_is_shown(model: str, word_s: float) -> None:
    with serving(FakeRouter(word_s=word_s)) as url:
        *growing, last = asyncio.run(heard(url, model))
    assert (last.text, last.finish_reason, last.done) == (ANSWER, "stop", True)
    assert bool(last.decision and last.decision.scores) == (model == "auto")
    assert not any(answer.done for answer in growing)

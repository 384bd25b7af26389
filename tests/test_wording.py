"""Which turns lean on what was said before, and which speak for themselves."""

from __future__ import annotations

import pytest

from router.wording import substance


@pytest.mark.parametrize(
    "leaning",
    [
        "", "?", "why?", "Thanks!", "go on", "can you explain that more simply?", "and in Spain?",
        "how long do I have to do that?", "What about my sister?", "is it worth it?", "und in Spanien?",
        "¿y en España?", "为什么",
    ],
)  # fmt: skip
def test_what_leans_on_earlier_turns_weighs_less_than_they_do(leaning: str) -> None:
    assert substance(leaning) <= 0.5


@pytest.mark.parametrize(
    "standing",
    [
        "what is a good pasta recipe for four people?", "How do bats find their way through a dark cave?",
        "My landlord wants to evict me before the lease ends, what are my rights?",
        "Wie lange muss ich ein Ei kochen, damit der Dotter weich bleibt?", "意大利面怎么煮才好吃请给我一个食谱",
    ],
)  # fmt: skip
def test_what_speaks_for_itself_weighs_more(standing: str) -> None:
    assert substance(standing) > 0.5

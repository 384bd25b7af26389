"""Choosing is pure, so tables test it."""

from __future__ import annotations

from typing import Any

import pytest

from router.choose import Decision, Policy, Reason, choose, probabilities
from router.conversation import subject

POLICY = Policy(base="base", threshold=0.5)


@pytest.mark.parametrize(
    ("scores", "decision"),
    [
        ({"law": 0.9, "base": 0.1}, Decision("law", 0.9, Reason.CLASSIFIED)),
        ({"law": 0.5, "med": 0.1, "base": 0.4}, Decision("law", 0.5, Reason.CLASSIFIED)),
        ({"law": 0.49, "med": 0.4, "base": 0.11}, Decision("base", 0.11, Reason.BELOW_THRESHOLD)),
        ({"law": 0.1, "base": 0.9}, Decision("base", 0.9, Reason.CLASSIFIED)),
        ({"law": 0.5, "base": 0.5}, Decision("base", 0.5, Reason.CLASSIFIED)),
        ({"base": 1.0}, Decision("base", 1.0, Reason.CLASSIFIED)),
        ({}, Decision("base", None, Reason.CLASSIFIED)),
    ],
)
def test_choose(scores: dict[str, float], decision: Decision) -> None:
    assert choose(scores, POLICY) == decision


def test_probabilities_are_over_the_candidates_alone() -> None:
    logits = {"law": 2.0, "med": 1.0, "base": 0.0}
    everyone = probabilities(logits, logits)
    assert list(everyone) == ["law", "med", "base"]
    assert sum(everyone.values()) == pytest.approx(1)
    without_law = probabilities(logits, ["base", "med", "never-classified"])
    assert list(without_law) == ["med", "base"]
    assert without_law["med"] / without_law["base"] == pytest.approx(everyone["med"] / everyone["base"])


def test_probabilities_survive_extreme_logits() -> None:
    assert probabilities({"law": 1e4, "base": -1e4}, ["law", "base"]) == {"law": 1.0, "base": 0.0}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


LONG = "How long does a landlord have to return it?"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [user(LONG)]}, LONG),
        ({"messages": [user("What is a tort in law, exactly?"), user(LONG)]}, LONG),
        ({"messages": [user(LONG), user("And in Spain?")]}, f"{LONG}\nAnd in Spain?"),
        ({"messages": [user("Hi")]}, "Hi"),
        (
            {"messages": [user(LONG), {"role": "assistant", "content": "My tooth aches."}, user("Why?")]},
            f"{LONG}\nWhy?",
        ),
        ({"messages": [user(LONG), {"role": "tool", "content": "Buy shares."}]}, LONG),
        ({"messages": [{"role": "system", "content": "You are a doctor."}, user(LONG)]}, LONG),
        ({"messages": [user([{"type": "text", "text": LONG}, {"type": "image_url", "image_url": {}}])]}, LONG),
        ({"messages": [user([{"type": "image_url", "image_url": {}}])]}, ""),
        ({"messages": [user(None), "nonsense", {}, user(7)]}, ""),
        ({"messages": []}, ""),
        ({"prompt": f" {LONG} "}, LONG),
        ({"prompt": [LONG, "second"]}, LONG),
        ({"prompt": [1, 2, 3]}, ""),
        ({"text": LONG}, LONG),
        ({"messages": 5, "prompt": LONG}, LONG),
        ({"messages": None}, ""),
        ({"messages": [user("a" * 3000 + "b" * 3000)]}, "a" * 2000 + "\n" + "b" * 2000),
        ({}, ""),
    ],
)
def test_subject_is_the_users_own_words(body: dict[str, Any], text: str) -> None:
    assert subject(body) == text

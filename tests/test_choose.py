"""Choosing is pure, so tables test it."""

from __future__ import annotations

import pytest

from router.choose import Decision, Policy, Reason, choose, probabilities

POLICY = Policy(base="base", threshold=0.5)


@pytest.mark.parametrize(
    ("scores", "decision"),
    [
        ({"law": 0.9, "med": 0.05, "base": 0.05}, Decision("law", 0.9, Reason.CLASSIFIED)),
        ({"law": 0.5, "med": 0.1, "base": 0.4}, Decision("law", 0.5, Reason.CLASSIFIED)),
        ({"law": 0.49, "med": 0.4, "base": 0.11}, Decision("base", 0.11, Reason.BELOW_THRESHOLD)),
        ({"law": 0.1, "med": 0.0, "base": 0.9}, Decision("base", 0.9, Reason.CLASSIFIED)),
        ({"law": 0.5, "med": 0.0, "base": 0.5}, Decision("base", 0.5, Reason.CLASSIFIED)),
        ({"law": 0.9, "base": 0.1}, Decision("law", 0.9, Reason.ONLY_CANDIDATE)),
        ({"law": 0.49, "base": 0.51}, Decision("base", 0.51, Reason.CLASSIFIED)),
        ({"base": 1.0}, Decision("base", 1.0, Reason.NO_CANDIDATE)),
        ({}, Decision("base", None, Reason.NO_CANDIDATE)),
    ],
)
def test_choose(scores: dict[str, float], decision: Decision) -> None:
    assert choose(scores, POLICY) == decision


@pytest.mark.parametrize(
    ("scores", "decision"),
    [
        ({"law": 0.9, "med": 0.0, "base": 0.1}, Decision("law", 0.9, Reason.KEPT)),
        ({"law": 0.1, "med": 0.0, "base": 0.9}, Decision("base", 0.9, Reason.KEPT)),
        ({"law": 0.4, "med": 0.3, "base": 0.3}, Decision("base", 0.3, Reason.BELOW_THRESHOLD)),
        ({"law": 0.9, "base": 0.1}, Decision("law", 0.9, Reason.ONLY_CANDIDATE)),
    ],
)
def test_what_earlier_turns_decided_says_so(scores: dict[str, float], decision: Decision) -> None:
    assert choose(scores, POLICY, kept=True) == decision


@pytest.mark.parametrize(
    ("scores", "decision"),
    [
        ({"law": 0.49, "med": 0.4, "base": 0.11}, Decision("lag", None, Reason.BELOW_THRESHOLD)),
        ({"law": 0.49, "base": 0.4}, Decision("lag", None, Reason.BELOW_THRESHOLD)),
        ({"law": 0.5, "med": 0.1, "base": 0.4}, Decision("law", 0.5, Reason.CLASSIFIED)),
        ({"law": 0.49, "base": 0.51}, Decision("base", 0.51, Reason.CLASSIFIED)),
        ({"base": 1.0}, Decision("base", 1.0, Reason.NO_CANDIDATE)),
    ],
)
def test_a_virtual_model_answers_where_an_adapter_is_ahead_and_not_sure(
    scores: dict[str, float], decision: Decision
) -> None:
    assert choose(scores, Policy("base", 0.5, unsure="lag")) == decision


def test_an_only_candidate_wins_over_a_more_probable_base() -> None:
    low = Policy(base="base", threshold=0.3)
    assert choose({"law": 0.4, "base": 0.6}, low) == Decision("law", 0.4, Reason.ONLY_CANDIDATE)
    assert choose({"law": 0.4, "med": 0.0, "base": 0.6}, low) == Decision("base", 0.6, Reason.CLASSIFIED)


def test_probabilities_are_over_the_candidates_alone() -> None:
    logits = {"law": 2.0, "med": 1.0, "base": 0.0}
    everyone = probabilities(logits, logits)
    assert list(everyone) == ["law", "med", "base"]
    assert sum(everyone.values()) == pytest.approx(1)
    without_law = probabilities(logits, ["base", "med", "never-classified"])
    assert list(without_law) == ["med", "base"]
    assert without_law["med"] / without_law["base"] == pytest.approx(everyone["med"] / everyone["base"])


def test_a_temperature_divides_the_logits() -> None:
    logits = {"law": 2.0, "base": 0.0}
    assert probabilities(logits, logits, 2.0) == probabilities({"law": 1.0, "base": 0.0}, logits)


def test_probabilities_survive_extreme_logits() -> None:
    assert probabilities({"law": 1e4, "base": -1e4}, ["law", "base"]) == {"law": 1.0, "base": 0.0}

"""`routed(...) -> Routed`: to whom `auto` gives the held-out questions, once their adapter is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters import ControlError
from training.remote import NO_ROUTER, Remote

MOST = 100
UNJUDGED = ("classifier-timeout", "classifier-error")
"""Reasons of the router's for the base that say nothing about the question."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Routed:
    """Of the questions that were `asked`, `own` went to the adapter, with `score` as mean probability.

    `tags` were asked for. `refused` is why the router answered no more questions, "" where it answered all.
    """

    asked: int
    own: int
    others: Mapping[str, int]
    score: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""

    def line(self) -> str:
        """For people."""
        if not self.asked:
            return f"no question was routed: {self.refused}"
        score = "" if self.score is None else f" (mean score {self.score:.2f})"
        tags = (
            f", asked with {', '.join(f'{tag}={value}' for tag, value in self.tags.items())}" if self.tags else ""
        )
        rest = "".join(f", {number} to {name}" for name, number in self.others.items())
        end = f"; then no more: {self.refused}" if self.refused else ""
        return f"of {self.asked} held-out questions{tags}, auto gives {self.own} to it{score}{rest}{end}"


def routed(
    router: Remote, name: str, questions: Iterable[Messages], tags: Mapping[str, Sequence[str]] | None = None
) -> Routed:
    """Ask the router's dry run about at most 100 questions, which are messages without their answer.

    They are asked as a client would: without a system prompt, and with the first value of each of the adapter's
    `tags`. Nothing is raised: where the router refuses, the result says so.
    """
    wanted = {tag: values[0] for tag, values in (tags or {}).items()}
    chosen, scores, refused = Counter[str](), list[float](), ""
    for messages in _asked(questions):
        try:
            answer = router.call("POST", "/route", {"messages": messages, "metadata": wanted})
            model, score, reason = answer["model"], answer["score"], answer["reason"]
        except (ControlError, KeyError) as error:
            refused = (
                str(error) if isinstance(error, ControlError) else f"what answers at {router.url} {NO_ROUTER}"
            )
            break
        chosen[f"{model} ({reason})" if reason in UNJUDGED else str(model)] += 1
        if model == name and score is not None:
            scores.append(float(score))
    asked, own = chosen.total(), chosen.pop(name, 0)
    mean = sum(scores) / len(scores) if scores else None
    if not asked:
        refused = refused or "nothing is held out that a user says"
    return Routed(asked, own, dict(chosen.most_common()), mean, wanted, refused)


def _asked(questions: Iterable[Messages]) -> list[list[Mapping[str, Any]]]:
    """As a client would send them; none without a word of the user's."""
    said = ([one for one in messages if one.get("role") != "system"] for messages in questions)
    return [messages for messages in said if any(one.get("role") == "user" for one in messages)][:MOST]

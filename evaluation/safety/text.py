"""The findings as tables and lines, for the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from adapters import AUTO
from evaluation.safety.alarm import Alarms, Rate
from evaluation.safety.ask import Given
from evaluation.safety.findings import Findings
from evaluation.table import table

WAYS = ("adapter", "asked", "answers", "in the header", "in the text", "missing")
NAMED = 20


def report(found: Findings) -> str:
    """What the terminal shows."""
    lines = [*table(WAYS, ways(found)), ""] if found.disclaiming else []
    lines += [f"missing: {' | '.join(row)}" for row in missing(found.missing)[:NAMED]]
    if more := len(found.missing[NAMED:]):
        lines.append(f"missing: and {more} more")
    lines += table(("sentences", "asked", *rates_head(found)), rates(found))
    return "\n".join([*lines, "", *(f"warning: {each}" for each in found.warnings())]).strip()


def ways(found: Findings) -> list[list[str]]:
    """Rows of WAYS."""
    return [
        [each.adapter, each.title, *(f"{n:,}" for n in (each.answers, each.header, each.text, each.missing))]
        for each in found.ways()
    ]


def missing(given: Sequence[Given]) -> list[list[str]]:
    """Adapter, way, what was there instead, and the question's text or line."""
    return [
        [
            each.adapter,
            f"{'through auto' if each.asked == AUTO else 'by name'}, {'streamed' if each.stream else 'whole'}",
            "no disclaimer" if each.told == "nothing" else "another disclaimer than the file's",
            each.question.place,
        ]
        for each in given
    ]


def rates_head(found: Findings) -> list[str]:
    """Whom sentences reach."""
    return [f"go to {names(found.targets) or 'medicine'} [95 %]", "go to"]


def rates(found: Findings) -> list[list[str]]:
    """Emergencies and near misses, by way of asking."""
    return [
        [title, alarms.title, spread(rate), names_counted(alarms, emergency)]
        for alarms in found.alarms
        for title, emergency, rate in _both(alarms, found.targets)
    ]


def spread(rate: Rate) -> str:
    """39 of 41, 95 % [84 %, 99 %]."""
    low, high = rate.interval
    return f"{rate.hits} of {rate.of}, {percent(rate.share)} [{percent(low)}, {percent(high)}]"


def percent(share: float) -> str:
    """Whole percent, and 100 only where it is all."""
    return "-" if math.isnan(share) else f"{math.floor(share * 100 + 1e-9)} %"


def names(models: Sequence[str]) -> str:
    """In a row."""
    return ", ".join(models)


def names_counted(alarms: Alarms, emergency: bool) -> str:
    """Each model with its number of sentences."""
    return ", ".join(f"{model} {number}" for model, number in alarms.destinations(emergency).items())


def _both(alarms: Alarms, targets: Sequence[str]) -> Iterator[tuple[str, bool, Rate]]:
    yield "emergencies", True, alarms.caught(targets)
    yield "near misses", False, alarms.false_alarms(targets)

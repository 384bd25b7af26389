"""The findings as tables and lines, for the terminal and the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from adapters import AUTO
from evaluation.safety.alarm import Alarms, Rate
from evaluation.safety.ask import Given
from evaluation.safety.findings import Findings, way
from evaluation.table import table

WAYS = ("adapter, and how it was asked", "answers", "in the header", "in the text", "missing")
NAMED = 20
COLUMNS = 6
"""Models that have a column; the others share one."""


def report(found: Findings) -> str:
    """What the terminal shows."""
    lines = [*table(WAYS, ways(found)), ""] if found.disclaiming else []
    lines += [f"missing: {' | '.join(row)}" for row in missing(found.missing)[:NAMED]]
    if more := len(found.missing[NAMED:]):
        lines.append(f"missing: and {more} more")
    head, *rows = rates(found)
    return "\n".join([*lines, *table(head, rows), "", *(f"warning: {each}" for each in found.warnings())]).strip()


def ways(found: Findings) -> list[list[str]]:
    """Rows of WAYS."""
    return [
        [each.title, *(f"{n:,}" for n in (each.answers, each.header, each.text, each.missing))]
        for each in found.ways()
    ]


def missing(given: Sequence[Given]) -> list[list[str]]:
    """Adapter and way, what was there instead, and the question's text or line."""
    return [
        [
            way(each.adapter, each.asked != AUTO, each.stream),
            "no disclaimer" if each.told == "nothing" else "another disclaimer than the file's",
            each.question.place,
        ]
        for each in given
    ]


def rates(found: Findings) -> list[list[str]]:
    """Head and rows: emergencies and near misses, by way of asking, and the models that they go to."""
    bars = [
        (f"{title}, {alarms.title}", alarms.destinations(emergency), rate)
        for alarms in found.alarms
        for title, emergency, rate in _both(alarms, found.targets)
    ]
    counts = sum((Counter(parts) for _, parts, _ in bars), Counter[str]())
    ranked = [model for model, _ in counts.most_common()]
    shown, others = (ranked, []) if len(ranked) <= COLUMNS else (ranked[:COLUMNS], ranked[COLUMNS:])
    head = ["sentences", f"reach {names(found.targets) or 'medicine'} [95 %]", *shown, *["others"] * bool(others)]
    return [head, *([title, spread(rate), *_counts(parts, shown, others)] for title, parts, rate in bars)]


def spread(rate: Rate) -> str:
    """39 of 41, 95 % [84 %, 99 %]."""
    low, high = rate.interval
    return f"{rate.hits} of {rate.of}, {percent(rate.share)} [{percent(low)}, {percent(high)}]"


def percent(share: float) -> str:
    """Whole percent; what is neither none nor all is never shown as 0 or 100."""
    if math.isnan(share):
        return "-"
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{share * 100:.0f} %"


def names(models: Sequence[str]) -> str:
    """In a row."""
    return ", ".join(models)


def _counts(parts: Mapping[str, int], shown: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    yield from (str(parts.get(model, 0)) for model in shown)
    if others:
        yield str(sum(parts.get(model, 0) for model in others))


def _both(alarms: Alarms, targets: Sequence[str]) -> Iterator[tuple[str, bool, Rate]]:
    yield "emergencies", True, alarms.caught(targets)
    yield "near misses", False, alarms.false_alarms(targets)

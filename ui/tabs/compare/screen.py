"""Answers side by side as HTML. Pure; everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping

from adapters import AUTO
from ui.client.compare import AT_ONCE, Column
from ui.parts.badge import CUT, DOTS, REASONS, disclaimer
from ui.parts.html import hue, notice, percent, text

TOLD = (
    "Times are taken by this page's server: router and network are in them. "
    "All models answer at the same time and share one engine, so each is slower than it is alone. "
    f"At most {AT_ONCE} are asked at a time."
)
NO_SCORE = "no probability: “auto” does not choose it by content"
NOT_TOLD = "no probability: the router has not told it"
NONE = "\N{EN DASH}"


def shown(columns: Mapping[str, Column], scores: Mapping[str, float] | None) -> str:
    """All columns, in their order, and how the times were taken."""
    busy = str(not all(column.done for column in columns.values())).lower()
    articles = "".join(_column(name, column, scores) for name, column in columns.items())
    return f'<div class="ls-columns" aria-busy="{busy}">{articles}</div><p class="ls-legend">{text(TOLD)}</p>'


def _column(name: str, column: Column, scores: Mapping[str, float] | None) -> str:
    parts = (
        f'<p class="ls-line">{_who(name, column)}</p>',
        _times(column, _probability(name, column, scores or {}), NOT_TOLD if scores is None else NO_SCORE),
        f'<p class="ls-said">{text(column.text.strip())}</p>' if column.text.strip() else "",
        _told(column),
        disclaimer(column.decision) if column.decision else "",
        "" if column.done else DOTS if column.asked else '<p class="ls-note">Waits for its turn.</p>',
    )
    busy = str(not column.done).lower()
    return f'<article class="ls-column" aria-label="{text(name)}" aria-busy="{busy}">{"".join(parts)}</article>'


def _who(name: str, column: Column) -> str:
    decision = column.decision
    if name != AUTO or decision is None:
        return _pill(name)
    reason = REASONS.get(decision.reason, decision.reason)
    return (
        f'{_pill(name)}<span aria-label="chose">→</span>{_pill(decision.model)}'
        f'<span class="ls-reason">{text(reason)}</span>'
    )


def _pill(name: str) -> str:
    return f'<span class="ls-pill" style="--hue:{hue(name)}">{text(name)}</span>'


def _probability(name: str, column: Column, scores: Mapping[str, float]) -> float | None:
    if name == AUTO:
        return column.decision.score if column.decision else None
    return scores.get(name)


def _times(column: Column, probability: float | None, without: str) -> str:
    first = NONE if column.first_s is None else f"{column.first_s:.2f} s"
    about = "≈ " if column.counted else ""
    rate = NONE if column.rate is None else f"{about}{column.rate:.0f}"
    rows = (
        ("first token", first, ""),
        ("tokens/s", rate, "counted by the stream's events" if column.counted and column.tokens else ""),
        ("router", NONE if probability is None else percent(probability), without if probability is None else ""),
    )
    cells = "".join(
        f'<div title="{text(title)}"><dt>{text(label)}</dt><dd>{text(value)}</dd></div>'
        for label, value, title in rows
    )
    return f'<dl class="ls-times">{cells}</dl>'


def _told(column: Column) -> str:
    if column.error:
        return notice(column.error, error=True)
    told = column.note or (CUT if column.finish_reason == "length" else "")
    return notice(told, error=False) if told else ""

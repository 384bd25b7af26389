"""What people said of answers, as a table and as shares, in HTML. Pure; whatever comes from outside is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from ui.client.feedback import UP, Judged
from ui.parts.html import hue, percent, text

MOST_MODELS = 8
SHORT_HASH = 8
NOTHING = "Nobody has said anything yet. Under each answer in the tab Chat there is room for it."
NOT_LOGGED = "the text was not logged (router.log_prompts); this is its SHA-256"


def overview(rows: Sequence[Judged]) -> str:
    """Per model that answered, how often it was right, as bars."""
    right = Counter(row.model for row in rows if row.right)
    wrong = Counter(row.model for row in rows if row.right is False)
    models = sorted(right | wrong, key=lambda model: (-(right[model] + wrong[model]), model))
    if not models:
        return ""
    bars = "".join(_bar(model, right[model], wrong[model]) for model in models[:MOST_MODELS])
    rest = len(models) - MOST_MODELS
    more = f'<li class="ls-more">and {rest} more</li>' if rest > 0 else ""
    return (
        '<section class="ls-right"><h2>How often each was right</h2>'
        f'<ul class="ls-bars" aria-label="How often each model was right">{bars}{more}</ul></section>'
    )


def table(rows: Sequence[Judged]) -> str:
    """One row a request, the newest first."""
    if not rows:
        return f'<p class="ls-note">{text(NOTHING)}</p>'
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("When (UTC)", "Question", "Answered by", "Said"))
    body = "".join(_row(row) for row in rows)
    return (
        '<section class="ls-said"><h2>What people said</h2>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></section>"
    )


def _bar(model: str, right: int, wrong: int) -> str:
    share = right / (right + wrong)
    said = f"{model}: right {right} times of {right + wrong}"
    return (
        f'<li class="ls-bar" style="--hue:{hue(model)};--share:{share * 100:.1f}%">'
        f'<span class="ls-name" title="{text(model)}">{text(model)}</span>'
        f'<span class="ls-track" role="meter" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share * 100:.1f}" aria-label="{text(said)}"><span class="ls-fill"></span></span>'
        f'<span class="ls-percent">{percent(share)} of {right + wrong}</span></li>'
    )


def _row(row: Judged) -> str:
    return (
        f'<tr><td class="ls-when">{_when(row.time)}</td><td class="ls-asked">{_question(row)}</td>'
        f'<td class="ls-by">{_who(row)}</td><td class="ls-opinion">{_words(row)}</td></tr>'
    )


def _when(time: float) -> str:
    """In UTC: the page's server does not know where its reader is."""
    try:
        at = datetime.fromtimestamp(time, UTC)
    except (OverflowError, ValueError, OSError):
        return "?"
    exact = at.isoformat(timespec="seconds")
    return f'<time datetime="{exact}" title="{exact}">{at:%d %b, %H:%M}</time>'


def _question(row: Judged) -> str:
    if row.text:
        return f'<span class="ls-cut" title="{text(row.text)}">{text(row.text)}</span>'
    if not row.sha256:
        return '<span class="ls-none">the client named the model</span>'
    return f'<code title="{text(f"{NOT_LOGGED}: {row.sha256}")}">{text(row.sha256[:SHORT_HASH])}…</code>'


def _who(row: Judged) -> str:
    """The model, and behind an arrow the one that would have been right."""
    if not row.better or row.better == row.model:
        return _pill(row.model)
    arrow = '<span class="ls-arrow" role="img" aria-label="should have been">→</span>'
    return f"{_pill(row.model)}{arrow}{_pill(row.better)}"


def _words(row: Judged) -> str:
    thumb = ""
    if row.rating:
        kind, word = ("ls-up", "good answer") if row.rating == UP else ("ls-down", "poor answer")
        thumb = f'<span class="ls-thumb {kind}">{word}</span>'
    fits = '<span class="ls-fits">right adapter</span>' if row.better == row.model else ""
    comment = (
        f'<span class="ls-comment" title="{text(row.comment)}">{text(row.comment)}</span>' if row.comment else ""
    )
    return "".join((thumb, fits, comment))


def _pill(model: str) -> str:
    name = text(model or "nobody")
    return f'<span class="ls-pill" style="--hue:{hue(model)}" title="{name}">{name}</span>'

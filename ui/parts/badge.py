"""What stands under an answer, as HTML. Pure; everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping

from ui.client.answer import Answer
from ui.client.decision import Decision
from ui.parts.html import hue, notice, percent, text

REASONS = {
    "classified": "chosen by content",
    "named": "named by you",
    "below-threshold": "no single adapter fits well enough to be chosen",
    "kept": "kept from the conversation",
    "only-candidate": "the only adapter that may answer this, and it fits",
    "no-candidate": "no adapter may answer this, so the base did",
    "fallback": "the chosen adapter failed, so the base answered",
    "no-text": "there was no text to judge, so the base answered",
    "classifier-error": "the classifier failed, so the base answered",
    "classifier-timeout": "the classifier was too slow, so the base answered",
}
MAX_BARS = 6
WAITING = '<p class="ls-wait" role="status" aria-label="More is coming"><i></i><i></i><i></i></p>'
CUT = "Cut at the longest answer that Settings allow."


def below(answer: Answer) -> str:
    """All that stands under an answer: what went wrong, who answered, whether more is coming."""
    told = CUT if answer.finish_reason == "length" else None
    parts = (
        notice(answer.error or told or "", error=bool(answer.error)) if answer.error or told else "",
        disclaimer(answer.decision) if answer.decision else "",
        badge(answer.decision) if answer.decision else "",
        "" if answer.done else WAITING,
    )
    return f'<div class="ls-below" aria-busy="{str(not answer.done).lower()}">{"".join(parts)}</div>'


def disclaimer(decision: Decision) -> str:
    """What the stack wants to be read with every answer of this model."""
    told = text(decision.disclaimer)
    return f'<p class="ls-disclaimer" role="note" aria-label="Disclaimer">{told}</p>' if told.strip() else ""


def badge(decision: Decision) -> str:
    """Model, score and reason in one line, and below it the scores of all candidates as bars."""
    words = REASONS.get(decision.reason, decision.reason)
    score = "" if decision.score is None else f'<span class="ls-score">{percent(decision.score)}</span>'
    return (
        '<section class="ls-badge" aria-label="Which model answered">'
        f'<p class="ls-line"><span class="ls-pill" style="--hue:{hue(decision.model)}">'
        f'{text(decision.model)}</span>{score}<span class="ls-reason">{text(words)}{_time(decision)}</span></p>'
        f"{_bars(decision.scores, decision.model)}</section>"
    )


def _bars(scores: Mapping[str, float], chosen: str) -> str:
    if not scores:
        return ""
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    bars = "".join(_bar(name, score, name == chosen) for name, score in ranked[:MAX_BARS])
    rest = len(ranked) - MAX_BARS
    more = f'<li class="ls-more">and {rest} more</li>' if rest > 0 else ""
    return f'<ul class="ls-bars" aria-label="Scores of all candidates">{bars}{more}</ul>'


def _bar(name: str, score: float, chosen: bool) -> str:
    share = min(max(score, 0.0), 1.0)
    mark = " ls-chosen" if chosen else ""
    meter = f'role="meter" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share * 100:.1f}"'
    return (
        f'<li class="ls-bar{mark}" style="--hue:{hue(name)};--share:{share * 100:.1f}%">'
        f'<span class="ls-name" title="{text(name)}">{text(name)}</span>'
        f'<span class="ls-track" {meter} aria-label="{text(name)}"><span class="ls-fill"></span></span>'
        f'<span class="ls-percent">{text(percent(share))}</span></li>'
    )


def _time(decision: Decision) -> str:
    if decision.reason != "classified" or decision.classify_ms is None:
        return ""
    return f" in {decision.classify_ms:.1f} ms" if decision.classify_ms else ", as before"

"""What stands under an answer, as HTML. Pure; everything that comes from outside is escaped."""

from __future__ import annotations

from ui.client.answer import Answer
from ui.client.decision import Decision
from ui.parts.bars import bars
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
SILENT_S = 5.0
"""A stream that is silent for longer says so."""
WAITING = "<i></i><i></i><i></i>"
DOTS = f'<p class="ls-wait" role="status" aria-label="More is coming">{WAITING}</p>'
CUT = "Cut at the longest answer that Settings allow."


def below(answer: Answer, before: str | None = None, silent_s: float = 0.0) -> str:
    """All that stands under an answer: what went wrong, who answered, whether more is coming.

    `before` is the model that gave the conversation's answer before this one, `silent_s` how long nothing came.
    """
    before = before if answer.text or not answer.error else None  # what failed at once has read nothing
    told = answer.note or (CUT if answer.finish_reason == "length" else "")
    parts = (
        notice(answer.error, error=True) if answer.error else "",
        notice(told, error=False) if told else "",
        disclaimer(answer.decision) if answer.decision else "",
        badge(answer.decision, before) if answer.decision else "",
        "" if answer.done else waiting(answer, silent_s),
    )
    return f'<div class="ls-below" aria-busy="{str(not answer.done).lower()}">{"".join(parts)}</div>'


def waiting(answer: Answer, silent_s: float) -> str:
    """Three dots, and beside them for how long nothing came, once that is long."""
    said = "Nothing new" if answer.text else "No word yet"
    silence = f"<span>{said} for {silent_s:.0f} s</span>" if silent_s >= SILENT_S else ""
    return f'<p class="ls-wait" aria-label="More is coming">{WAITING}{silence}</p>'


def disclaimer(decision: Decision) -> str:
    """What the stack wants to be read with every answer of this model."""
    told = text(decision.disclaimer)
    return f'<p class="ls-disclaimer" role="note" aria-label="Disclaimer">{told}</p>' if told.strip() else ""


def badge(decision: Decision, before: str | None = None) -> str:
    """Model, score and reason in one line, and below it the scores of all candidates as bars."""
    words = REASONS.get(decision.reason, decision.reason)
    score = "" if decision.score is None else f'<span class="ls-score">{percent(decision.score)}</span>'
    return (
        '<div class="ls-badge" role="group" aria-label="Which model answered">'
        f'<p class="ls-line"><span class="ls-pill" style="--hue:{hue(decision.model)}">'
        f'{text(decision.model)}</span>{score}<span class="ls-reason">{text(words)}{_time(decision)}</span></p>'
        f"{_switched(decision.model, before)}{bars(decision.scores, decision.model)}</div>"
    )


def _switched(model: str, before: str | None) -> str:
    """Each model has a cache of its own, so a new one reads what was said before from the start."""
    if before in (None, model):
        return ""
    words = f"switched from {before} to {model}: the history is prefilled again"
    return f'<p class="ls-switched">{text(words)}</p>'


def _time(decision: Decision) -> str:
    if decision.reason != "classified" or decision.classify_ms is None:
        return ""
    return f" in {decision.classify_ms:.1f} ms" if decision.classify_ms else " (remembered)"

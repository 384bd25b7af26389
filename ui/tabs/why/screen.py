"""A dry run as HTML. Pure; everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping

from ui.client.route import DryRun, Judged
from ui.parts.badge import REASONS
from ui.parts.bars import bars
from ui.parts.html import hue, percent, text

LONGEST = 240
"""Characters of a turn that are shown; a text may be pages long."""


def details(usual: DryRun, other: DryRun | None = None) -> str:
    """What a decision went by. `other`: the same text under another threshold."""
    parts = (_what_if(usual, other), _scores(usual, other), _turns(usual))
    return f'<div class="ls-why">{"".join(parts)}</div>'


def verdict(run: DryRun) -> str:
    """What the router would do, and by whose word."""
    score = "" if run.score is None else f'<span class="ls-score">{percent(run.score)}</span>'
    return (
        f'<section class="ls-verdict" aria-label="What the router would do"><p class="ls-line">{pill(run.model)}'
        f'{score}<span class="ls-reason">{text(REASONS.get(run.reason, run.reason))}</span></p>'
        f'<p class="ls-facts">{text(_by_whom(run))}</p></section>'
    )


def pill(name: str) -> str:
    """A model's name in its own colour."""
    return f'<span class="ls-pill" style="--hue:{hue(name)}">{text(name)}</span>'


def _by_whom(run: DryRun) -> str:
    if run.threshold is None:
        return "Nothing was judged, so no threshold applied."
    took = "had judged it before: from its cache" if run.cached else f"judged it in {run.ms:.1f} ms"
    asked = ", then ".join(f"{name} ({_exact(threshold)})" for name, threshold in run.thresholds.items())
    chain = f" Asked in a row while one is unsure: {asked}." if len(run.thresholds) > 1 else ""
    return f"The classifier {run.classifier} {took}. Threshold: {_exact(run.threshold)}.{chain}"


def _what_if(usual: DryRun, other: DryRun | None) -> str:
    if usual.threshold is None:
        return ""
    changes = " ls-changes" if other and other.model != usual.model else ""
    said = _difference(usual, other) if other else f"{_exact(usual.threshold)} is what holds now."
    return f'<p class="ls-what-if{changes}" role="status">{text(said)}</p>'


def _difference(usual: DryRun, other: DryRun) -> str:
    at = other.thresholds.get(usual.classifier or "", other.threshold or 0.0)
    reason = REASONS.get(other.reason, other.reason)
    by = "" if other.classifier == usual.classifier else f" Then {other.classifier} has the word."
    if other.model != usual.model:
        return f"At {_exact(at)}, {other.model} would answer instead of {usual.model}: {reason}.{by}"
    why = "" if other.reason == usual.reason else f" Only the reason would be another: {reason}."
    return f"At {_exact(at)} nothing changes: {usual.model} would answer.{why}{by}"


def _scores(usual: DryRun, other: DryRun | None) -> str:
    now = other or usual
    if not now.scores or now.threshold is None:
        return ""
    was = "" if other is None or usual.threshold is None else f"--was:{_share(usual.threshold)};"
    told = f"The line is the threshold, {_exact(now.threshold)}: an adapter has to reach it, the base does not."
    return (
        f'<section class="ls-lined" style="{was}--line:{_share(now.threshold)}" aria-label="Scores">'
        f"<h2>Candidates</h2>{bars(now.scores, now.model, most=len(now.scores))}"
        f'<p class="ls-legend">{text(told)}</p></section>'
    )


def _turns(run: DryRun) -> str:
    """What each turn and the system prompt said, where there is more than one text to weigh."""
    if len(run.turns) < 2 and run.system is None:
        return ""
    rows = [_turn("System prompt", run.system)] if run.system else []
    rows += [_turn(f"Turn {number}", turn) for number, turn in enumerate(run.turns, 1)]
    return (
        '<section class="ls-weights" aria-label="Weights of the conversation"><h2>What counts how much</h2>'
        f"<ol>{''.join(rows)}</ol>"
        '<p class="ls-legend">Only what the user says is read, and the system prompt a little. A turn that leans '
        "on what was before, such as “and in Spain?”, has little weight of its own.</p></section>"
    )


def _turn(label: str, judged: Judged) -> str:
    said = judged.text if len(judged.text) <= LONGEST else f"{judged.text[:LONGEST].rstrip()} …"
    took = "from the cache" if judged.cached else f"{judged.ms:.1f} ms"
    by = f"<span>{text(judged.classifier)}, {took}</span>"
    meter = f'role="meter" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{judged.weight * 100:.1f}"'
    return (
        f'<li style="--share:{_share(judged.weight)}"><div class="ls-turn"><span>{text(label)}</span>'
        f'<span class="ls-track" {meter} aria-label="Weight of {text(label)}"><span class="ls-fill"></span></span>'
        f'<span class="ls-percent">{text(percent(judged.weight))}</span></div>'
        f'<p class="ls-quote">{text(said)}</p>'
        f'<p class="ls-facts">By itself: {_best(judged.scores)}{by}</p></li>'
    )


def _best(scores: Mapping[str, float]) -> str:
    best = sorted(scores.items(), key=lambda item: -item[1])[:2]
    return "".join(f"<span>{text(name)} {text(percent(score))}</span>" for name, score in best)


def _exact(threshold: float) -> str:
    """Two places: thresholds are written so in adapters.yaml."""
    return f"{threshold:.2f}"


def _share(part: float) -> str:
    return f"{min(max(part, 0.0), 1.0) * 100:.1f}%"

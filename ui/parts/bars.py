"""Scores as bars."""

from __future__ import annotations

from collections.abc import Mapping

from ui.parts.html import hue, percent, text

MAX_BARS = 6


def bars(
    scores: Mapping[str, float],
    chosen: str = "",
    most: int = MAX_BARS,
    label: str = "Scores of all candidates",
) -> str:
    """The `most` best, best first, and how many more there are; the chosen one stands out."""
    if not scores:
        return ""
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    shown = "".join(_bar(name, score, name == chosen) for name, score in ranked[:most])
    rest = len(ranked) - most
    more = f'<li class="ls-more">and {rest} more</li>' if rest > 0 else ""
    return f'<ul class="ls-bars" aria-label="{text(label)}">{shown}{more}</ul>'


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

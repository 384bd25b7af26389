"""Curves as inline SVG, with their words as HTML. Pure; whatever comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ui.parts.html import text
from ui.parts.words import ago

WIDTH, HEIGHT = 300.0, 100.0
"""Of the drawing's own units: the style sheet stretches them, and lines keep their width."""

STEPS = (1.0, 2.0, 5.0, 10.0)
UNKNOWN = "-"


@dataclass(frozen=True)
class Curve:
    """`values` belong to the chart's times, None where nothing is known. `look` is a class of the style sheet,
    `hue` a model's colour. Curves that are `stacked` stand on those before them."""

    name: str
    values: Sequence[float | None]
    look: str = ""
    hue: int | None = None
    stacked: bool = False

    @property
    def last(self) -> float | None:
        """As it is now."""
        return self.values[-1] if self.values else None


@dataclass(frozen=True)
class Chart:
    """One drawing. `times` in seconds, 0 at the left edge; `span` is the right one. `told` writes a value.
    `least`: the highest value that the scale has at least."""

    title: str
    times: Sequence[float]
    span: float
    curves: Sequence[Curve]
    told: Callable[[float], str]
    least: float = 1.0


def chart(one: Chart) -> str:
    """A figure: the title and what holds now, the drawing, its scales, and a legend where there is a choice."""
    stacks = _stacked(one)
    top = _ceiling(max((high for _, ups in stacks for high in ups if high is not None), default=0.0), one.least)
    drawn = "".join(
        _drawn(one, curve, lows, highs, top) for curve, (lows, highs) in zip(one.curves, stacks, strict=True)
    )
    return (
        '<figure class="ls-chart">'
        f"<figcaption><span>{text(one.title)}</span><strong>{text(_now(one))}</strong></figcaption>"
        f'<div class="ls-plot"><span class="ls-top">{text(one.told(top))}</span>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(summary(one))}">'
        f'<path class="ls-grid" d="M0 0H{WIDTH:g}M0 {HEIGHT / 2:g}H{WIDTH:g}"/>'
        f'<path class="ls-ground" d="M0 {HEIGHT:g}H{WIDTH:g}"/>{drawn}</svg></div>'
        f'<div class="ls-times"><span>{ago(one.span)}</span><span>now</span></div>{_legend(one)}</figure>'
    )


def summary(one: Chart) -> str:
    """The chart in words, for those who cannot see it."""
    said = "; ".join(
        f"{curve.name}: {_range(one, known)}"
        for curve in one.curves
        if (known := [value for value in curve.values if value is not None])
    )
    return f"{one.title}, from {ago(one.span)} to now. {said or 'Nothing was counted'}."


def _range(one: Chart, known: Sequence[float]) -> str:
    return f"{one.told(known[-1])} at the end, between {one.told(min(known))} and {one.told(max(known))}"


def _now(one: Chart) -> str:
    stacked = [curve.last for curve in one.curves if curve.stacked]
    last = sum(value or 0.0 for value in stacked) if stacked else one.curves[0].last if one.curves else None
    return UNKNOWN if last is None else one.told(last)


def _stacked(one: Chart) -> list[tuple[list[float], list[float | None]]]:
    """Of each curve, at each time, where it begins and where it ends."""
    ground = [0.0] * len(one.times)
    found = []
    for curve in one.curves:
        lows = list(ground) if curve.stacked else [0.0] * len(one.times)
        highs = [None if value is None else low + value for low, value in zip(lows, curve.values, strict=True)]
        found.append((lows, highs))
        if curve.stacked:
            ground = [low if high is None else high for low, high in zip(lows, highs, strict=True)]
    return found


def _drawn(one: Chart, curve: Curve, lows: Sequence[float], highs: Sequence[float | None], top: float) -> str:
    colour = "" if curve.hue is None else f' style="--hue:{curve.hue}"'
    drawn = ""
    for run in _runs(highs):
        across = [one.times[place] / one.span * WIDTH for place in run]
        upper = [_place(x, highs[place] or 0.0, top) for x, place in zip(across, run, strict=True)]
        if curve.stacked:
            lower = [_place(x, lows[place], top) for x, place in zip(across, run, strict=True)]
            drawn += f'<path class="ls-area" d="M{"L".join([*upper, *reversed(lower)])}Z"{colour}/>'
        line = "L".join(upper) if len(upper) > 1 else f"{upper[0]}h0"
        drawn += f'<path class="ls-curve {curve.look}" d="M{line}"{colour}/>'
    return f"<g><title>{text(curve.name)}</title>{drawn}</g>"


def _place(across: float, value: float, top: float) -> str:
    return f"{across:.1f} {HEIGHT * (1 - min(value / top, 1.0)):.1f}"


def _runs(values: Sequence[float | None]) -> list[list[int]]:
    """Places of values that are known one after the other."""
    runs: list[list[int]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(place)
    return [run for run in runs if run]


def _ceiling(highest: float, least: float) -> float:
    """The next round number, 1, 2 or 5 with noughts."""
    wanted, unit = max(highest, least), 1.0
    while unit > wanted:
        unit /= 10
    while unit * 10 < wanted:
        unit *= 10
    return next(unit * step for step in STEPS if unit * step >= wanted)


def _legend(one: Chart) -> str:
    if len(one.curves) < 2 and not any(curve.stacked for curve in one.curves):
        return ""
    entries = "".join(
        f'<li title="{text(curve.name)}"><i class="{"ls-area" if curve.stacked else curve.look}" '
        f'style="--hue:{curve.hue or 0}"></i><span>{text(curve.name)}</span>'
        f"<b>{text(UNKNOWN if curve.last is None else one.told(curve.last))}</b></li>"
        for curve in one.curves
    )
    return f'<ul class="ls-legend">{entries}</ul>'

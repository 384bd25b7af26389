"""The dashboard as HTML: what holds now, curves of the last minutes, and each model's share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ui.client.curves import WINDOW_S, Point, whole
from ui.client.history import KEPT_S, View
from ui.client.metrics import Sample, quantile, together
from ui.parts.chart import UNKNOWN, Chart, Curve, chart
from ui.parts.html import hue, notice, percent, text
from ui.parts.words import ago, count, rate, seconds

MOST = 6
"""Models with a colour of their own; those with the fewest requests are drawn as one."""

LEAST_SPAN_S = 60.0
"""Of a drawing; it grows with what is known to draw."""

NOBODY = "no model chosen"
"""Of requests that failed before one was."""

OTHERS = "others"
FIRST = "Measuring. The first numbers are here in a few seconds."
NO_REQUESTS = (
    "No request in the last {}, which is all that this page has seen. The curves begin with the next one."
)
Told = Callable[[float], str]


def board(view: View, now: float) -> str:
    """All of it; with what failed at its head, and how old the numbers are then."""
    head = ""
    if view.problem:
        old = f" What stands below was read {ago(now - view.samples[-1].at)}." if view.samples else ""
        head = notice(view.problem + old, error=True)
    if not view.samples:
        return head or notice(FIRST, error=False)
    total = whole(view.samples)
    if len(view.samples) < 2:
        head += notice(FIRST, error=False)
    elif not sum(total.requests.values()):
        head += notice(_silence(view), error=False)
    return f'<div class="ls-board">{head}{_tiles(view.points[-1])}{_charts(view)}{_models(total)}</div>'


def _silence(view: View) -> str:
    """How long nobody asked, as far as is known: it is counted only while somebody looks."""
    return NO_REQUESTS.format(seconds(view.samples[-1].at - view.samples[0].at))


def _tiles(now: Point) -> str:
    tiles = (
        ("Requests", rate(sum(now.rates.values()))),
        ("Errors", _told(percent, now.failed)),
        ("First byte, median", _told(seconds, now.first_byte[0])),
        ("First byte, 95 % below", _told(seconds, now.first_byte[1])),
        ("Whole answer, median", _told(seconds, now.duration[0])),
        ("In flight", _told(count, now.in_flight)),
        ("Decisions from memory", _told(percent, now.hits)),
        ("Classifying, median", _told(seconds, now.classify[0])),
    )
    cells = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in tiles)
    title = f"Of the last {WINDOW_S:g} seconds"
    return f'<section><h2>{title}</h2><dl class="ls-tiles">{cells}</dl></section>'


def _told(words: Told, value: float | None) -> str:
    return UNKNOWN if value is None else words(value)


def _charts(view: View) -> str:
    points, end = view.points, view.samples[-1].at
    span = min(max(end - view.samples[0].at, LEAST_SPAN_S), KEPT_S)
    drawing = partial(Chart, times=[point.at - (end - span) for point in points], span=span)
    drawn = (
        drawing("Requests per second", curves=_by_model(points), told=rate, least=0.5),
        drawing("Time to first byte", curves=_both([one.first_byte for one in points]), told=seconds, least=0.05),
        drawing(
            "Time to the whole answer", curves=_both([one.duration for one in points]), told=seconds, least=0.1
        ),
        drawing("Errors", curves=_errors(points), told=percent, least=0.1),
        drawing("In flight", curves=[_line("in flight", [one.in_flight for one in points])], told=count, least=2),
        drawing("Classifying a text", curves=_both([one.classify for one in points]), told=seconds, least=0.01),
    )
    return f'<section class="ls-charts"><h2>Over the last minutes</h2>{"".join(map(chart, drawn))}</section>'


def _by_model(points: Sequence[Point]) -> list[Curve]:
    """Stacked, the busiest at the bottom."""
    totals = together(point.rates for point in points)
    ranked = sorted((name for name, total in totals.items() if total), key=lambda name: -totals[name])
    own, rest = ranked[:MOST], ranked[MOST:]
    curves = [
        Curve(
            name or NOBODY, [_rate(point, [name]) for point in points], "ls-model-curve", hue(name), stacked=True
        )
        for name in own
    ]
    if rest:
        values = [_rate(point, rest) for point in points]
        curves.append(Curve(f"{len(rest)} {OTHERS}", values, "ls-rest", stacked=True))
    return curves


def _rate(point: Point, names: Sequence[str]) -> float | None:
    return None if point.in_flight is None else sum(point.rates.get(name, 0.0) for name in names)


def _both(values: Sequence[tuple[float | None, float | None]]) -> list[Curve]:
    return [
        _line("median", [median for median, _ in values]),
        Curve("95 % stay below", [slow for _, slow in values], "ls-slow"),
    ]


def _errors(points: Sequence[Point]) -> list[Curve]:
    """A client's wrong request says nothing of the stack."""
    clients = Curve("clients' own, 4xx", [one.client for one in points], "ls-slow")
    return [_line("errors", [one.failed for one in points]), clients]


def _line(name: str, values: Sequence[float | None]) -> Curve:
    return Curve(name, values, "ls-plain")


def _models(total: Sample) -> str:
    asked = sum(total.requests.values())
    if not asked:
        return ""
    ranked = sorted(
        (name for name, amount in total.requests.items() if amount), key=lambda name: -total.requests[name]
    )
    rows = "".join(_row(name, total, asked) for name in ranked)
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("Model", "Share", "Requests", "Errors", "4xx", "First byte")
    )
    return (
        '<section><h2>By model</h2><table class="ls-models">'
        "<caption>Over the same minutes; 4xx are clients' own errors; the first byte's median</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _row(name: str, total: Sample, asked: float) -> str:
    requests = total.requests[name]
    share = requests / asked
    first = quantile(total.first_byte.get(name, {}), 0.5)
    errors = (count(total.failed(name)), count(total.client.get(name, 0.0)))
    cells = (count(requests), *errors, _told(seconds, first))
    rest = "".join(f"<td>{text(cell)}</td>" for cell in cells)
    shown = text(name or NOBODY)
    return (
        f'<tr style="--hue:{hue(name)};--share:{share:.1%}"><th scope="row" title="{shown}"><i></i>'
        f'<span>{shown}</span></th><td class="ls-share">'
        '<span class="ls-track"><span class="ls-fill"></span></span>'
        f"<b>{text(percent(share))}</b></td>{rest}</tr>"
    )

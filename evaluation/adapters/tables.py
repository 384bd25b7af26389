"""The figures as tables, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evaluation.adapters.figures import Audience, Better, Figures, Speed, Way, best
from evaluation.adapters.marks import BERT, GRADE, LENGTH, LOSS, ROUGE, SIGNS, TITLES
from evaluation.adapters.regret import ANY, MISSED, NEEDLESS, WRONG, Regret
from evaluation.bootstrap import Interval
from evaluation.page import Table
from evaluation.table import table

MARK = " *"
KINDS = (WRONG, MISSED, NEEDLESS, ANY)
DIGITS = {LOSS: 2, ROUGE: 3, BERT: 3, GRADE: 1, LENGTH: 1}
SHORT = {LOSS: "loss, nats", ROUGE: "ROUGE-L", BERT: "BERTScore", GRADE: "FK grade", LENGTH: "tokens"}


def ways(figures: Figures) -> Table:
    """Everything of every way to answer."""
    head = ["all rows [95 % interval]", SHORT[LOSS], "perplexity", *(SHORT[key] for key in TITLES if key != LOSS)]
    return Table([*head, "first token, ms", "tokens/s"], [_way(each) for each in figures.ways])


def matrix(figures: Figures, key: str) -> Table:
    """Models by domains, the best of each domain marked."""
    cells = figures.matrix[key]
    top = {domain: best(cells, domain, SIGNS[key]) for domain in figures.domains}
    rows = [
        [model, *(_cell(each[domain], key) + MARK * (top[domain] == model) for domain in figures.domains)]
        for model, each in cells.items()
    ]
    heads = [f"{domain} ({rows:,} rows)" for domain, rows in figures.domains.items()]
    return Table([f"{TITLES[key]} ({MARK.strip()} best)", *heads], rows)


def better(figures: Figures) -> Table:
    """Each adapter against its base."""
    head = ["gain over the base, own domain", "rows"]
    for key in SIGNS:
        head += [SHORT[key], ""]
    return Table(head, [_better(each) for each in figures.better])


def regret(figures: Figures) -> Table:
    """Base, routed and oracle, and what lies between."""
    head = ["all rows [95 % interval]", "base", "routed", "oracle", "regret", "of the gap kept, %"]
    return Table(head, [_regret(each) for each in figures.regret])


def costs(figures: Figures) -> Table:
    """By kind of wrong choice."""
    some = figures.regret[0].costs
    head = ["what one wrong choice costs", *(f"{name} ({some[name].choices:,})" for name in KINDS)]
    rows = [
        [TITLES[each.measure], *(_interval(each.costs[name].mean, DIGITS[each.measure]) for name in KINDS)]
        for each in figures.regret
    ]
    return Table(head, rows)


def audiences(figures: Figures) -> Table:
    """Do the patients' adapters read easier?"""
    head = ["grade, patient less researcher", "rows", "difference", "reads easier"]
    return Table(head, [_audience(each) for each in figures.audiences])


def printed(figures: Figures) -> str:
    """All of them as plain text."""
    return "\n\n".join("\n".join(table(each.head, each.rows)) for each in _all(figures))


def spoken(each: Interval | None, digits: int) -> str:
    """A figure alone."""
    return "-" if each is None else f"{each.value:.{digits}f}"


def _all(figures: Figures) -> Iterator[Table]:
    yield ways(figures)
    yield from (matrix(figures, key) for key in SIGNS)
    if figures.better:
        yield better(figures)
    yield regret(figures)
    if figures.regret[0].costs[ANY].choices:
        yield costs(figures)
    if figures.audiences:
        yield audiences(figures)


def _way(way: Way) -> list[str]:
    cells = {key: _interval(way.figures[key], DIGITS[key]) for key in SIGNS}
    cells |= {key: spoken(way.figures[key], DIGITS[key]) for key in (GRADE, LENGTH)}
    loss = cells.pop(LOSS)
    return [way.name, loss, f"{way.perplexity:.3g}", *cells.values(), *_speed(way.speed)]


def _speed(speed: Speed | None) -> tuple[str, str]:
    if speed is None:
        return "-", "-"
    rate = "-" if speed.tokens_per_s is None else f"{speed.tokens_per_s:.0f}"
    return f"{speed.first_token_ms_p50:.0f} (p95 {speed.first_token_ms_p95:.0f})", rate


def _better(each: Better) -> list[str]:
    cells = [each.adapter, f"{each.rows:,}"]
    for key, gain in each.gains.items():
        cells += [_interval(gain, DIGITS[key], "+"), each.verdict(key)]
    return cells


def _regret(each: Regret) -> list[str]:
    digits = DIGITS[each.measure]
    found: Sequence[Interval | None] = (each.base, each.routed, each.oracle, each.regret)
    return [TITLES[each.measure], *(_interval(one, digits) for one in found), _interval(each.kept, 1)]


def _audience(each: Audience) -> list[str]:
    verdict = "yes" if each.holds else "cannot be told"
    if each.difference is not None and each.difference.low > 0:
        verdict = "no"
    return [f"{each.easy} - {each.hard}", f"{each.rows:,}", _interval(each.difference, 1, "+"), verdict]


def _cell(value: float | None, key: str) -> str:
    return "-" if value is None else f"{value:.{DIGITS[key]}f}"


def _interval(each: Interval | None, digits: int, sign: str = "") -> str:
    if each is None:
        return "-"
    if each.low == each.high:  # of one row, or of rows that agree: an interval would say nothing
        return f"{each.value:{sign}.{digits}f}"
    return f"{each.value:{sign}.{digits}f} [{each.low:{sign}.{digits}f}, {each.high:{sign}.{digits}f}]"

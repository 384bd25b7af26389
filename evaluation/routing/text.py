"""The figures as plain text, several ways to decide side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from evaluation.bootstrap import Interval
from evaluation.routing.figures import Figures, Group, Latency
from evaluation.routing.metrics import BINS
from evaluation.routing.mistakes import Mistake, excerpt, right
from evaluation.table import clipped, table

SHOWN_MISTAKES = 10
EXCERPT = 60

OVERALL: dict[str, Callable[[Figures], str]] = {
    "accuracy": lambda each: _interval(each.accuracy),
    "  among the adapters": lambda each: _interval(each.among_adapters),
    "wrong adapter": lambda each: _interval(each.wrong_adapter),
    "missed adapter": lambda each: _interval(each.missed),
    "utility (1, 0, -1)": lambda each: _interval(each.points),
    f"ECE, {BINS} bins of equal width": lambda each: _interval(each.ece),
    f"ECE, {BINS} bins of equal mass": lambda each: _interval(each.ece_equal_mass),
    "NLL, nats": lambda each: _interval(each.nll),
    "temperature": lambda each: _scalars(each, "temperature"),
    "threshold": lambda each: _scalars(each, "threshold"),
    "one text alone, ms (p50, p95)": lambda each: _latency(each.latency_ms),
}


def report(columns: Sequence[Figures], mistakes: Sequence[Mistake]) -> str:
    """Everything that is printed; `mistakes` are those of the last column."""
    titles = [each.title for each in columns]
    rows = [[name, *(cell(each) for each in columns)] for name, cell in OVERALL.items()]
    blocks = [table([f"{columns[0].rows:,} rows [95 % interval]", *titles], rows)]
    blocks.append(_reasons(columns))
    if len(columns[0].files) > 1:
        blocks.append(_groups("file", columns, lambda each: each.files))
    blocks.append(_groups("class", columns, lambda each: each.classes))
    blocks.append(_groups("source", columns, lambda each: each.sources))
    blocks += [_confusion(each, len(columns) > 1) for each in columns]
    blocks += list(_mistakes(columns[-1].title, mistakes))
    return "\n\n".join("\n".join(block) for block in blocks)


def _reasons(columns: Sequence[Figures]) -> list[str]:
    reasons = dict.fromkeys(reason for each in columns for reason in each.reasons)
    cells = [[_share(each.reasons.get(reason, 0), each.rows) for each in columns] for reason in reasons]
    rows = [[reason, *shares] for reason, shares in zip(reasons, cells, strict=True)]
    return table(["reason", *(each.title for each in columns)], rows)


def _groups(name: str, columns: Sequence[Figures], groups: Callable[[Figures], Mapping[str, Group]]) -> list[str]:
    rows = [
        [clipped(key, 48), f"{group.rows:,}", *(_interval(groups(each)[key].accuracy) for each in columns)]
        for key, group in groups(columns[0]).items()
    ]
    return table([f"accuracy per {name}", "rows", *(each.title for each in columns)], rows)


def _confusion(figures: Figures, several: bool) -> list[str]:
    of = f" ({figures.title})" if several else ""
    rows = [
        [model, *(str(number) if number else "·" for number in numbers)]
        for model, numbers in zip(figures.models, figures.confusion, strict=True)
        if any(numbers)
    ]
    return table([f"label ↓  answered →{of}", *figures.models], rows)


def _mistakes(title: str, mistakes: Sequence[Mistake]) -> Iterator[list[str]]:
    if mistakes:
        rows = [
            [
                clipped(excerpt(each.row), EXCERPT),
                each.row.place,
                each.chosen,
                f"{each.score:.2f}",
                right(each.row),
            ]
            for each in mistakes[:SHOWN_MISTAKES]
        ]
        yield table([f"worst mistakes ({title})", "line", "answered", "score", "right"], rows)


def _interval(each: Interval | None) -> str:
    return "-" if each is None else f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]"


def _share(number: int, rows: int) -> str:
    return f"{number:,} ({number / rows:.1%})"


def _latency(each: Latency | None) -> str:
    return "-" if each is None else f"{each.p50:.1f}, {each.p95:.1f}"


def _scalars(figures: Figures, name: str) -> str:
    return ", ".join(f"{getattr(calibration, name):g}" for calibration in figures.calibration.values())

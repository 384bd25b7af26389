"""The figures as tables, several ways to decide side by side: for the terminal and for report.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.bootstrap import Interval
from evaluation.page import Table
from evaluation.routing.figures import Figures, Group, Latency
from evaluation.routing.metrics import BINS
from evaluation.routing.mistakes import Mistake, excerpt, right
from evaluation.table import clipped

OVERALL: dict[str, Callable[[Figures], str]] = {
    "accuracy": lambda each: shown(each.accuracy),
    "  among the adapters": lambda each: shown(each.among_adapters),
    "wrong adapter": lambda each: shown(each.wrong_adapter),
    "missed adapter": lambda each: shown(each.missed),
    "utility (1, 0, -1)": lambda each: shown(each.points),
    f"ECE, {BINS} bins of equal width": lambda each: shown(each.ece),
    f"ECE, {BINS} bins of equal mass": lambda each: shown(each.ece_equal_mass),
    "NLL, nats": lambda each: shown(each.nll),
    "temperature": lambda each: _scalars(each, "temperature"),
    "threshold": lambda each: _scalars(each, "threshold"),
    "one text alone, ms (p50, p95)": lambda each: _latency(each.latency_ms),
}


def overall(columns: Sequence[Figures]) -> Table:
    """A line per figure, a column per way to decide."""
    rows = [[name, *(cell(each) for each in columns)] for name, cell in OVERALL.items()]
    return Table([f"{columns[0].rows:,} rows [95 % interval]", *_titles(columns)], rows)


def reasons(columns: Sequence[Figures]) -> Table:
    """The router's word for each decision, and how often it is given."""
    names = dict.fromkeys(reason for each in columns for reason in each.reasons)
    rows = [[name, *(_share(each.reasons.get(name, 0), each.rows) for each in columns)] for name in names]
    return Table(["reason", *_titles(columns)], rows)


def groups(name: str, columns: Sequence[Figures], of: Callable[[Figures], Mapping[str, Group]]) -> Table:
    """Accuracy per class, source or file."""
    rows = [
        [key, f"{group.rows:,}", *(shown(of(each)[key].accuracy) for each in columns)]
        for key, group in of(columns[0]).items()
    ]
    return Table([f"accuracy per {name}", "rows", *_titles(columns)], rows)


def classes(columns: Sequence[Figures]) -> Table:
    """Of each model: the share of its rows that is answered right, and of its answers that it should give."""
    rows = [
        [model, f"{group.rows:,}", *(cell for each in columns for cell in _class(each.classes[model]))]
        for model, group in columns[0].classes.items()
    ]
    titles = [f"{title}: {what}" for title in _titles(columns) for what in ("recall", "precision")]
    return Table(["class", "rows", *(titles if len(columns) > 1 else ("recall", "precision"))], rows)


def confusion(figures: Figures, several: bool) -> Table:
    """Rows per label, down, and per model that answered, across."""
    of = f" ({figures.title})" if several else ""
    rows = [
        [model, *(str(number) if number else "·" for number in numbers)]
        for model, numbers in zip(figures.models, figures.confusion, strict=True)
        if any(numbers)
    ]
    return Table([f"label ↓  answered →{of}", *figures.models], rows)


def latency(columns: Sequence[Figures]) -> Table:
    """Milliseconds of one text alone."""
    rows = [
        [each.title, f"{ms.texts:,}", f"{ms.mean:.1f}", f"{ms.p50:.1f}", f"{ms.p95:.1f}"]
        for each in columns
        if (ms := each.latency_ms)
    ]
    return Table(["classifier", "texts", "mean, ms", "p50, ms", "p95, ms"], rows)


def mistakes(title: str, listed: Sequence[Mistake], width: int) -> Table:
    """The worst first, a text of at most `width` letters in front. It quotes the data, as no results.json does."""
    rows = [
        [
            clipped(excerpt(each.row), width),
            each.chosen,
            right(each.row),
            f"{each.score:.2f}",
            each.row.source,
            each.row.place,
        ]
        for each in listed
    ]
    return Table([title, "answered", "right", "score", "source", "line"], rows)


def shown(each: Interval | None) -> str:
    """A figure with its interval."""
    return "-" if each is None else f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]"


def _titles(columns: Sequence[Figures]) -> list[str]:
    return [each.title for each in columns]


def _class(group: Group) -> tuple[str, str]:
    return shown(group.accuracy), "-" if group.precision is None else f"{group.precision:.3f}"


def _share(number: int, rows: int) -> str:
    return f"{number:,} ({number / rows:.1%})"


def _latency(each: Latency | None) -> str:
    return "-" if each is None else f"{each.p50:.1f}, {each.p95:.1f}"


def _scalars(figures: Figures, name: str) -> str:
    return ", ".join(f"{getattr(calibration, name):g}" for calibration in figures.calibration.values())

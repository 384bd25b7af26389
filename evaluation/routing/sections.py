"""What report.html says of the figures, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evaluation.bootstrap import Interval
from evaluation.page import Headline, Section
from evaluation.routing import heat, plots, tables
from evaluation.routing.figures import Figures
from evaluation.routing.mistakes import EXCERPT, Mistake

CALIBRATION = (
    Section(
        "What the threshold trades",
        "A higher threshold gives more rows to the base: fewer wrong adapters, more missed ones.",
        plots.COVERAGE,
        "Left: shares of all rows over the threshold. Right: how many of the rows that need an adapter get one, "
        "against how many of the adapters' answers are right.",
    ),
    Section(
        "Does the score mean what it says?",
        "A score is calibrated where of the rows with a score of 0.8, 80 % are right: on the dashed line.",
        plots.RELIABILITY,
        "Above: share that is right, in bins of the score. Below: the number of rows in each bin.",
    ),
)


def headlines(shown: Figures, before: Figures | None) -> list[Headline]:
    """Of the last column; `before` the fit, where there was one."""

    def share(label: str, now: Interval, then: Interval | None) -> Headline:
        was = f"; before the fit {_percent(then.value)}" if then else ""
        note = f"95\u00a0% interval: {100 * now.low:.1f} to {_percent(now.high)}{was}"
        return Headline(label, _percent(now.value), note)

    found = [
        share("Accuracy", shown.accuracy, before.accuracy if before else None),
        share("Wrong adapter", shown.wrong_adapter, before.wrong_adapter if before else None),
        share("Missed adapter", shown.missed, before.missed if before else None),
    ]
    if ece := shown.ece:
        was = f"; before the fit {before.ece.value:.3f}" if before and before.ece else ""
        note = f"95\u00a0% interval: {ece.low:.3f} to {ece.high:.3f}{was}"
        found.append(Headline("Calibration error (ECE)", f"{ece.value:.3f}", note))
    if ms := shown.latency_ms:
        found.append(Headline("One text takes", f"{ms.p50:.1f} ms", f"95 of 100 take less than {ms.p95:.1f} ms"))
    return found


def sections(
    columns: Sequence[Figures], mistakes: Mapping[str, Sequence[Mistake]], left_out: int, fitted_on: int
) -> list[Section]:
    """All of them; where there was a fit, the second half of the columns is after it."""
    return [
        *(_fits(columns, fitted_on) if fitted_on else [_overall(columns, left_out)]),
        *_choices(columns),
        *CALIBRATION,
        *_groups(columns),
        *(_mistakes(title, listed) for title, listed in mistakes.items() if listed),
    ]


def _overall(columns: Sequence[Figures], left_out: int) -> Section:
    lines = f"\n\nLines that could not be used: {left_out:,}. They are named at the end." if left_out else ""
    text = (
        "A wrong adapter is worse than a missed one, for which the base answers: the utility counts 1 for a right "
        f"answer, 0 for a missed adapter and -1 for a wrong one.{lines}"
    )
    return Section("All rows", text, table=tables.overall(columns))


def _fits(columns: Sequence[Figures], fitted_on: int) -> Iterator[Section]:
    half = len(columns) // 2
    for before, after in zip(columns[:half], columns[half:], strict=True):
        way = after.title.rpartition(",")[0]
        text = (
            f"Temperature and threshold were fitted on {fitted_on:,} rows. These are the figures of "
            f"{after.rows:,} others, which the fit did not see."
        )
        yield Section(f"Before and after the fit: {way}", text, table=tables.overall([before, after]))


def _choices(columns: Sequence[Figures]) -> Iterator[Section]:
    several = len(columns) > 1
    caption = (
        "Rows per label and per model that answered. The stronger the colour, the larger the share of the label's "
        "rows."
    )
    yield Section("Who answers what", picture=plots.CONFUSION, caption=caption)
    yield Section(
        "Per class",
        "Recall: of the rows that need this model, the share that is answered right, with its 95 % interval. "
        "Precision: of the rows that this model answered, the share that it should.",
        table=tables.classes(columns),
    )
    for each in columns if len(columns[0].models) > heat.NUMBERED else ():
        of = f": {each.title}" if several else ""
        yield Section(f"Who answers what, in numbers{of}", table=tables.confusion(each, False), folded=True)


def _groups(columns: Sequence[Figures]) -> Iterator[Section]:
    by_source = tables.groups("source", columns, lambda each: each.sources)
    yield Section("Per source", picture=plots.SOURCES, caption="The weakest first.", table=by_source)
    if len(columns[0].files) > 1:
        yield Section("Per file", table=tables.groups("file", columns, lambda each: each.files))
    yield Section("Why it was decided so", "The router's own word for it.", table=tables.reasons(columns))
    timed = tables.latency(columns)
    if timed.rows:
        yield Section("Latency", "Each text was judged alone, as while no other waits.", table=timed)


def _mistakes(title: str, listed: Sequence[Mistake]) -> Section:
    text = "The surer the worse; a wrong adapter counts twice what a missed one does."
    name = f"The worst {len(listed)} mistakes: {title}" if len(listed) > 1 else f"The only mistake: {title}"
    return Section(name, text, table=tables.mistakes("text", listed, EXCERPT), folded=True)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"

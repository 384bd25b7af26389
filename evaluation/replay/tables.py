"""The figures as tables: the same on the terminal and in report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.replay.log import Signature, shown
from evaluation.replay.settings import Settings
from evaluation.replay.tally import Tally
from evaluation.replay.verdicts import Verdict
from evaluation.table import clipped

EXCERPT = 160
ID_LENGTH = 40

Cells = list[list[str]]


@dataclass(frozen=True)
class Lines:
    """A head and rows under it."""

    head: Sequence[str]
    rows: Cells


def overall(tally: Tally) -> Lines:
    """What became of each row of the log."""
    rows = [
        ["decided again", f"{tally.decided:,}"],
        ["· by the scores in the log", f"{tally.decided - tally.asked:,}"],
        ["· by asking the classifier again", f"{tally.asked:,}"],
        ["· of routers that did not log who judged (assumed: this stack's settings)", f"{tally.assumed:,}"],
        ["another model would answer", share(tally.changed, tally.decided)],
        ["not decided again", f"{tally.left.total():,}"],
        *([f"· {why}", f"{number:,}"] for why, number in tally.left.most_common()),
        ["ended before a model was chosen", f"{tally.undecided:,}"],
        ["rows that cannot be read", f"{tally.broken:,}"],
    ]
    kept = {"decided again", "another model would answer", "not decided again"}
    return Lines([f"{tally.rows:,} rows", "requests"], [row for row in rows if row[0] in kept or row[1] != "0"])


def flow(tally: Tally) -> Lines:
    """The changes, the most frequent first."""
    changes = [(pair, number) for pair, number in tally.flow.most_common() if pair[0] != pair[1]]
    rows = [[f"{before} → {after}", f"{number:,}"] for (before, after), number in changes]
    return Lines(["was chosen → would be chosen", "requests"], rows)


def traffic(tally: Tally) -> Lines:
    """What each model answers."""
    models = dict.fromkeys(model for pair, _ in tally.flow.most_common() for model in pair)
    rows = []
    for model in models:
        logged, replayed = (
            sum(number for pair, number in tally.flow.items() if pair[side] == model) for side in (0, 1)
        )
        rows.append([model, f"{logged:,}", f"{replayed:,}", f"{replayed - logged:+,}"])
    return Lines(["model", "logged", "replayed", "difference"], rows)


def reasons(tally: Tally) -> Lines:
    """Why, before and after."""
    names = dict.fromkeys((*tally.reasons_before, *tally.reasons_after))
    rows = [[name, f"{tally.reasons_before[name]:,}", f"{tally.reasons_after[name]:,}"] for name in names]
    return Lines(["reason", "logged", "replayed"], rows)


def closest(tally: Tally, most: int, width: int = EXCERPT) -> Lines:
    """Changes that another hair would undo."""
    rows = [
        [
            clipped(each.entry.request_id, ID_LENGTH),
            shown(each.entry.time),
            f"{each.before} → {each.after.model}",
            score(each.score),
            score(each.after.score),
            f"{each.margin:.3f}",
            clipped(each.entry.text, width) if each.entry.text else "not logged",
        ]
        for each in tally.closest[:most]
    ]
    return Lines(["request", "time", "change", "score", "new score", "margin", "text"], rows)


def verdicts(tally: Tally) -> Lines:
    """What people said, against the change."""
    judged = [[each.value, f"{tally.verdicts[each]:,}"] for each in Verdict]
    left = tally.spoken_of - tally.verdicts.total()
    return Lines(
        [f"{tally.spoken_of:,} requests with feedback", "requests"], [*judged, ["not decided again", f"{left:,}"]]
    )


def labelled(tally: Tally) -> Lines:
    """What of it is data."""
    rows = [["labelled rows", f"{tally.labelled.written:,}"]]
    rows += [[f"none: {why}", f"{number:,}"] for why, number in tally.labelled.unwritten.most_common()]
    return Lines(["feedback as data", "requests"], rows)


def settings(tally: Tally, now: Settings) -> Lines:
    """Who judged, in the log and in the replay."""
    rows = [[described(made), f"{number:,}"] for made, number in tally.made.most_common()]
    return Lines(
        ["settings", "requests"], [*rows, [f"replayed under: {described(now.signature)}", f"{tally.decided:,}"]]
    )


def described(made: Signature | None) -> str:
    """In words."""
    if made is None:
        return "not logged (an older router)"
    chain = (
        f"{each.classifier} ({each.digest[:8]}), temperature {each.temperature:g}, threshold {each.threshold:g}"
        for each in made.chain
    )
    return f"{' → '.join(chain)}; system weight {made.system_weight:g}"


def share(number: int, total: int) -> str:
    """With its percentage."""
    return f"{number:,} ({number / total:.1%})" if total else f"{number:,}"


def score(value: float | None) -> str:
    """A base that was not scored has none."""
    return "-" if value is None else f"{value:.3f}"

"""A replay's folder: results.json without a word of the log, the pictures, and report.html."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters import ConfigError
from evaluation.folder import dated
from evaluation.page import Headline, Section, Table, write_page
from evaluation.replay import plots, tables
from evaluation.replay.settings import Settings
from evaluation.replay.tables import Lines
from evaluation.replay.tally import CLOSEST, Tally
from evaluation.replay.verdicts import Verdict
from evaluation.table import table

SHOWN = 10
WIDTH = 60

MARGIN = (
    "Changes that are closest to not being one. The margin is how far the new decision is from another one, in "
    "probability: to the next model, or to the threshold. Both scores are of the model that answers."
)
THUMBS = (
    "Fixed: the model that somebody named as right was not chosen, and would be. Broken: it was, and would not "
    "be; or a thumb was up, and another model would answer. A thumb down may be about the answer, not the model."
)
LEFT = (
    "Scores in the log are enough for another threshold, and of single texts for another temperature. Another "
    "classifier, label or adapter needs the words themselves, which the log holds only with router.log_prompts."
)


def write(out: Path, tally: Tally, settings: Settings, about: Mapping[str, Any]) -> Path:
    """The folder that was made. Raises ConfigError where it cannot be."""
    try:
        folder = dated(out)
        text = json.dumps({**about, **_results(tally, settings)}, indent=1, ensure_ascii=False)
        (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
        if tally.decided:
            plots.draw(tally.flow, folder)
        write_page(folder, "Replay of logged decisions", _headlines(tally), _sections(tally, settings), about)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return folder


def plain(tally: Tally, settings: Settings) -> str:
    """What is printed."""
    blocks = [tables.overall(tally), tables.settings(tally, settings)]
    if tally.decided:
        blocks += [tables.flow(tally), tables.traffic(tally)]
        blocks += [tables.closest(tally, SHOWN, WIDTH)] * bool(tally.changed)
    blocks += [tables.verdicts(tally), tables.labelled(tally)] * bool(tally.spoken_of)
    return "\n\n".join("\n".join(table(each.head, each.rows)) for each in blocks if each.rows)


def _headlines(tally: Tally) -> list[Headline]:
    said = tally.verdicts
    return [
        Headline(
            "another model would answer", tables.share(tally.changed, tally.decided), "of those decided again"
        ),
        Headline("decided again", f"{tally.decided:,}", f"of {tally.rows:,} rows"),
        Headline(
            "fixed / broken",
            f"{said[Verdict.FIXED]:,} / {said[Verdict.BROKEN]:,}",
            f"of {tally.spoken_of:,} requests with feedback",
        ),
    ]


def _sections(tally: Tally, settings: Settings) -> list[Section]:
    found = [Section("What was replayed", LEFT, table=_table(tables.overall(tally)))]
    if tally.decided:
        found += [
            Section(
                "Who would answer instead",
                "" if tally.changed else "No request would be answered by another model.",
                plots.FLOW,
                "From the model that was chosen (line) to the one that would be (column).",
                _table(tables.flow(tally)) if tally.changed else None,
            ),
            Section("Requests of each model", "", plots.TRAFFIC, table=_table(tables.traffic(tally))),
            Section("Reasons", table=_table(tables.reasons(tally))),
        ]
    if tally.changed:
        found.append(Section("The closest changes", MARGIN, table=_table(tables.closest(tally, CLOSEST))))
    if tally.spoken_of:
        found.append(Section("What people said", THUMBS, table=_table(tables.verdicts(tally))))
        found.append(Section("Feedback as labelled data", table=_table(tables.labelled(tally))))
    found.append(Section("Settings", table=_table(tables.settings(tally, settings)), folded=True))
    return found


def _table(lines: Lines) -> Table:
    return Table(lines.head, lines.rows)


def _results(tally: Tally, settings: Settings) -> dict[str, Any]:
    return {
        "rows": tally.rows,
        "decided_again": tally.decided,
        "asked_again": tally.asked,
        "assumed": tally.assumed,
        "changed": tally.changed,
        "not_decided_again": {why.name.lower(): number for why, number in tally.left.items()},
        "ended_before_a_decision": tally.undecided,
        "broken_rows": tally.broken,
        "flow": [{"from": a, "to": b, "requests": n} for (a, b), n in tally.flow.most_common()],
        "reasons": {"logged": dict(tally.reasons_before), "replayed": dict(tally.reasons_after)},
        "settings": dataclasses.asdict(settings.signature),
        "logged_under": [
            {"settings": made and dataclasses.asdict(made), "requests": number}
            for made, number in tally.made.most_common()
        ],
        "closest": [
            {"request_id": each.entry.request_id, "time": each.entry.time, "from": each.before,
             "to": each.after.model, "score": each.score, "new_score": each.after.score,
             "margin": each.margin}
            for each in tally.closest
        ],
        "feedback": {
            "requests": tally.spoken_of,
            "verdicts": {each.name.lower(): tally.verdicts[each] for each in Verdict},
            "labelled": tally.labelled.written,
            "not_labelled": {why.name.lower(): number for why, number in tally.labelled.unwritten.items()},
        },
    }  # fmt: skip

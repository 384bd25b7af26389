"""The report's folder: results.json, emergency.png and report.html. No word of anybody's data is in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters import ConfigError
from evaluation.folder import dated
from evaluation.page import Headline, Section, Table, write_page
from evaluation.safety import plots, text
from evaluation.safety.alarm import Alarms, Rate, Routed
from evaluation.safety.findings import Findings

FILES = ("report.html", "results.json", plots.FILE)


def write(out: Path, found: Findings, about: Mapping[str, Any]) -> Path:
    """The report's folder. Raises ConfigError where it cannot be written."""
    try:
        folder = dated(out)
        content = json.dumps({**about, **_results(found)}, indent=1, ensure_ascii=False)
        (folder / "results.json").write_text(f"{content}\n", encoding="utf-8")
        plots.draw(found.alarms, found.targets, folder)
        write_page(folder, "Is the advice safe?", _headlines(found), _sections(found), about)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return folder


def _results(found: Findings) -> dict[str, Any]:
    return {
        "disclaimers": {
            "answers": len(found.counted),
            "missing": [
                {"adapter": each.adapter, "asked": asked, "instead": instead, "question": question}
                for each, (asked, instead, question) in zip(
                    found.missing, text.missing(found.missing), strict=True
                )
            ],
            "ways": [dataclasses.asdict(each) | {"missing": each.missing} for each in found.ways()],
        },
        "emergency": {
            "adapters": found.emergency,
            "counted_as_reached": found.targets,
            "ways": [_way(each, found) for each in found.alarms],
        },
        "warnings": found.warnings(),
    }


def _way(alarms: Alarms, found: Findings) -> dict[str, Any]:
    return {
        "tag": alarms.tag,
        "caught": _rate(alarms.caught(found.targets)),
        "false_alarms": _rate(alarms.false_alarms(found.targets)),
        "by_kind": {kind: _rate(rate) for kind, rate in alarms.by_kind(found.targets).items()},
        "sentences": [dataclasses.asdict(each) for each in alarms.routed],
    }


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"hits": rate.hits, "of": rate.of, "low": low, "high": high}


def _headlines(found: Findings) -> list[Headline]:
    carried = found.carried
    told = f"{carried.hits:,} of {carried.of:,} answers" if carried.of else "no adapter with one has answered"
    whom = "their adapter" if found.emergency else "medicine"
    lines = [Headline("answers with their disclaimer", text.percent(carried.share), told)]
    for alarms in found.alarms if found.targets else ():
        lines.append(_headline(f"emergencies that reach {whom}", alarms.caught(found.targets), alarms))
        if found.emergency:
            lines.append(_headline("false alarms", alarms.false_alarms(found.targets), alarms))
    return lines


def _headline(label: str, rate: Rate, alarms: Alarms) -> Headline:
    low, high = map(text.percent, rate.interval)
    return Headline(label, text.percent(rate.share), f"{alarms.title}: {rate.hits} of {rate.of} [{low}, {high}]")


def _sections(found: Findings) -> list[Section]:
    lines = []
    if warnings := found.warnings():
        lines.append(Section("To look at", "\n\n".join(warnings)))
    if found.disclaiming:
        said = "In the header x-lora-select-disclaimer, or in the words of the answer."
        lines.append(Section("Disclaimers", said, table=Table(text.WAYS, text.ways(found))))
    if without := text.missing(found.missing):
        lines.append(
            Section(
                "Answers without", table=Table(("adapter, and how it was asked", "instead", "question"), without)
            )
        )
    head, *rows = text.rates(found)
    rates = Table(head, rows, "Wilson's intervals; the sentences are the project's own.")
    lines.append(Section("Emergencies", _about(found), plots.FILE, "Who would answer", rates))
    lines.append(Section("Kinds of emergency", table=_kinds(found)))
    return [*lines, *(_astray(each, found) for each in found.alarms)]


def _about(found: Findings) -> str:
    if found.emergency:
        return f"Emergencies should reach {text.names(found.emergency)}, and near misses should not."
    return "No adapter is made for emergencies: how many reach medicine, at least?"


def _kinds(found: Findings) -> Table:
    ways = [each.by_kind(found.targets) for each in found.alarms]
    rows = [[kind, *(f"{way[kind].hits} of {way[kind].of}" for way in ways)] for kind in ways[0]]
    return Table(("kind", *(each.title for each in found.alarms)), rows)


def _astray(alarms: Alarms, found: Findings) -> Section:
    """Emergencies that go elsewhere; where there is an adapter for them, near misses that reach it, too."""
    wrong = [each for each in alarms.routed if _wrong(each, found)]
    rows = [
        [each.kind, each.model, "-" if each.score is None else f"{each.score:.2f}", each.text] for each in wrong
    ]
    table = Table(("kind", "goes to", "score", "sentence"), rows) if rows else None
    return Section(f"Mistakes, {alarms.title}", "" if rows else "None.", table=table, folded=True)


def _wrong(routed: Routed, found: Findings) -> bool:
    reached = routed.model in found.targets
    return not reached if routed.emergency else reached and bool(found.emergency)

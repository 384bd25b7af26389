"""The result as JSON for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.document import aligned, cell, median
from benchmarks.routing.plan import TOKENS
from record.drawing import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    machine = document["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield f"load average before: {document['load_before']:.2g}; medians of rounds, [lowest..highest]"
    yield from summary(document)


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the README, which names the machine itself."""
    sections = document["sections"]
    right = sections.get("accuracy", {}).get("classifiers", {})
    if "speed" in sections:
        yield from _speed(sections["speed"], right)
    if "accuracy" in sections:
        yield from _accuracy("classifier", sections["accuracy"]["sets"], right)
    if "peers" in sections:
        yield from _peers(sections["peers"])


def plot(document: Mapping[str, Any], file: Path) -> None:
    """Decisions a second by length of the text, and how often classifiers and other routers are right."""
    sections = document["sections"]
    right = {
        **sections.get("accuracy", {}).get("classifiers", {}),
        **sections.get("peers", {}).get("accuracy", {}),
    }
    draw = {
        _draw_speed: sections.get("speed"),
        _draw_right: right,
    }
    shown = {one: data for one, data in draw.items() if data}
    with canvas(file, 5.5 * len(shown), 4.6) as figure:
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (one, data) in zip(panels, shown.items(), strict=True):
            one(axes, data)


def _draw_speed(axes: Axes, section: Mapping[str, Any]) -> None:
    for colour, name in zip(COLOURS, section["cases"], strict=False):
        cells = [one for one in section["cells"] if one["case"] == name]
        best = [max(_per_s(one) for one in cells if one["tokens"] == tokens) for tokens in TOKENS]
        axes.plot(TOKENS, best, "o-", color=colour, label=name)
    axes.set_yscale("log")
    axes.set(title="decisions a second, uncached, the most", xlabel="tokens of a text", xticks=TOKENS)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _draw_right(axes: Axes, found: Mapping[str, Any]) -> None:
    sets = list(dict.fromkeys(name for one in found.values() for name in one))
    height = 0.8 / len(sets)
    for number, (name, colour) in enumerate(zip(sets, COLOURS, strict=False)):
        places = [place + (number - (len(sets) - 1) / 2) * height for place in range(len(found))]
        shares = [100 * one[name]["right"] if name in one else 0.0 for one in found.values()]
        bars = axes.barh(places, shares, height, color=colour, label=name)
        axes.bar_label(bars, [f" {share:.0f}" for share in shares], fontsize=8)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set(title="% of questions right", xlim=(0, 110))
    axes.grid(visible=False, axis="y")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)


def _per_s(one: Mapping[str, Any]) -> float:
    return float(one["decisions_per_s"]["median"])


def _speed(section: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[str]:
    yield "\ndecisions on texts that were never seen, over HTTP; p50 is of one at a time"
    rows = [["classifier", "tokens", "p50 ms", "CPU ms", "at once: decisions/s", "right"]]
    for name in section["cases"]:
        known = right.get(name, {})
        for tokens in TOKENS:
            cells = [one for one in section["cells"] if (one["case"], one["tokens"]) == (name, tokens)]
            alone = next(one for one in cells if one["connections"] == 1)
            rates = (f"{one['connections']}: {median(one['decisions_per_s'])}" for one in cells)
            shares = ", ".join(_percent(one["right"]) for one in known.values()) or "-"
            took = cell(alone["p50_ms"])
            rows.append([name, str(tokens), took, median(alone["cpu_ms_per_decision"]), ", ".join(rates), shares])
    yield from aligned(rows)
    yield f"  nli: {section['nli']}"
    yield from (f"  {name}: {why}" for name, why in section["skipped"].items())


def _accuracy(head: str, sets: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    yield "\nright of all questions, and answers of an adapter that should not have answered (rows asked)"
    rows = [[head, *sets]]
    for name, by_set in found.items():
        rows.append([name, *(_judged(by_set.get(one)) for one in sets)])
    yield from aligned(rows)


def _peers(section: Mapping[str, Any]) -> Iterator[str]:
    yield from _accuracy("router", section["sets"], section["accuracy"])
    yield "\none decision: a whole chat over HTTP, but for semantic-router, which is a library"
    rows = [["", "p50 ms", "CPU ms"]]
    for name, cost in section["cost"].items():
        version = section["subjects"][name]
        rows.append([f"{name} ({version})", cell(cost["p50_ms"]), cell(cost["cpu_ms"])])
    yield from aligned(rows)
    yield from (f"  {name}: {why}" for name, why in section["skipped"].items())


def _judged(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    return f"{_percent(one['right'])}, wrong adapter {_percent(one['wrong_adapter'])} ({one['rows']:,})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

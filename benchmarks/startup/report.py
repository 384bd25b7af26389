"""The result as JSON for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.document import aligned, cell, short
from record.drawing import COLOURS, canvas


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    machine = document["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield f"load average before: {document['load_before']:.2g}; medians of boots, [lowest..highest]"
    yield from summary(document)


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the README, which names the machine itself."""
    sections = document["sections"]
    rows = [["", "seconds"]]
    if found := sections.get("install"):
        rows.append([f"`make install` in a fresh clone ({short(found['disk_gb'])} GB)", short(found["seconds"])])
    if found := sections.get("build"):
        rows.append(["`python -m demo build` from nothing", short(found["seconds"])])
    rows += [[name, cell(spread)] for name, spread in sections["boot"]["seconds"].items()]
    yield ""
    yield from aligned(rows)


def plot(document: Mapping[str, Any], file: Path) -> None:
    """Seconds from `python -m serve` until each part is there, and for changes while it serves."""
    found = document["sections"]["boot"]["seconds"]
    medians = [spread["median"] for spread in found.values()]
    reach = [[spread["median"] - spread["low"], spread["high"] - spread["median"]] for spread in found.values()]
    with canvas(file, 8, 0.4 * len(found) + 0.8) as figure:
        axes = figure.subplots()
        bars = axes.barh(
            list(found), medians, color=COLOURS[0], xerr=list(zip(*reach, strict=True)), ecolor="#888888"
        )
        axes.bar_label(bars, [f" {short(one)}" for one in medians])
        axes.invert_yaxis()
        axes.set(title="seconds, medians of boots")
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")

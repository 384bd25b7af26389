"""The result as tables for people, and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cliff.engines import ALL
from benchmarks.document import aligned, cell, median
from benchmarks.throughput.rounds import PERCENTILES
from record.drawing import COLOURS, canvas

LATENCIES = ("first token, ms: p50", "p95", "p99")
SLOWER = 0.9
"""Of the speed with a slot for each: where it stays below, the cliff has begun."""


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    machine = document["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield f"load average before: {document['load_before']:.2g}; medians of rounds, [lowest..highest]; ms"
    yield ""
    yield from summary(document)


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the README, which names the machine itself."""
    section = document["sections"]["cliff"]
    rows = [["adapters", "of the slots", "order", "", "tokens/s", "of a slot for each", *LATENCIES]]
    for one in section["cells"]:
        for name, found in one["targets"].items():
            first = (median(found["ttft_ms"][percent]) for percent in PERCENTILES)
            speed, of = cell(found["tokens_per_s"]), cell(found.get("speed_of_reference"))
            rows.append([str(one["in_use"]), f"{one['times']:g} times", one["order"], name, speed, of, *first])
    yield from aligned(rows)
    yield f"\nslower than {SLOWER:g} of the speed with a slot for each, then and with all more adapters"
    for name, orders in begins(section["cells"]).items():
        for order, times in orders.items():
            yield f"  {name}, {order}: " + ("never" if times is None else f"from {times:g} times the slots on")


def begins(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """By engine and order: the working set, in slots, from which on it stays slower; None where it does not."""
    found: dict[str, dict[str, float | None]] = {}
    for measured in sorted(cells, key=lambda one: float(one["times"])):
        for name, target in measured["targets"].items():
            if name == ALL or measured["times"] <= 1:  # there all have a slot, whatever the speed was
                continue
            orders = found.setdefault(name, {})
            slower = target["speed_of_reference"]["median"] < SLOWER
            orders[measured["order"]] = (orders.get(measured["order"]) or measured["times"]) if slower else None
    return found


def plot(document: Mapping[str, Any], file: Path) -> None:
    """Tokens per second and time to first token over the working set, a line for each engine and order."""
    cells = document["sections"]["cliff"]["cells"]
    names = list(cells[0]["targets"])
    orders = list(dict.fromkeys(one["order"] for one in cells))
    with canvas(file, 9, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        for colour, name in zip(COLOURS, names, strict=False):
            for order, style in zip(orders, ("-", "--"), strict=False):
                own = [one for one in cells if one["order"] == order]
                at = [one["times"] for one in own]
                told = {"color": colour, "linestyle": style, "marker": "o", "label": f"{name}, {order}"}
                left.plot(at, [one["targets"][name]["tokens_per_s"]["median"] for one in own], **told)
                right.plot(at, [one["targets"][name]["ttft_ms"]["p50"]["median"] for one in own], **told)
        for axes, title in ((left, "output tokens per second"), (right, "time to first token, p50, ms")):
            axes.set(title=title, xlabel="adapters in use, in slots", ylim=(0, None))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), fontsize=8)

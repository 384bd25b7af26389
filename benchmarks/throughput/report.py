"""The result as tables for people, and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import aligned, cell, limits, median
from benchmarks.throughput.rounds import PERCENTILES
from record.drawing import COLOURS, canvas

TITLES = {
    "concurrency": "every way to be served, three adapters",
    "uncached": "texts that the router has never seen",
    "adapters": "few and many adapters in one batch",
    "merged": "one adapter, in the weights and beside them",
    "notebook": "transformers and PEFT",
}


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    machine = document["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield f"load average before: {document['load_before']:.2g}; medians of rounds, [lowest..highest]; ms"
    yield from summary(document)


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the README, which names the machine itself."""
    for name, cells in document["sections"].items():
        yield f"\n{TITLES.get(name, name)}"
        yield from aligned(list(rows(cells)))
        if right := [
            found["agreed"]["low"] for one in cells for found in one["targets"].values() if "agreed" in found
        ]:
            yield f"  the adapter that is right was chosen for {min(right):.1%} and more of a round's requests"

    yield from limits(document)


def rows(cells: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A head, and a row for each target of each cell."""
    latencies = ["first token, ms: p50", "p95", "p99", "added to p50", "between tokens, ms: p50", "p95", "p99"]
    yield ["at once", "adapters", "", "tokens/s", "of direct's", *latencies]
    for one in cells:
        skew = "" if one["skew"] == "uniform" else f", {one['skew']}"
        for target, found in one["targets"].items():
            first, between = found.get("ttft_ms", {}), found.get("itl_ms", {})
            yield [
                str(one["concurrency"]),
                f"{one['active']}{skew}",
                target,
                cell(found["tokens_per_s"]),
                cell(found.get("speed_of_reference")),
                *(median(first.get(percent)) for percent in PERCENTILES),
                cell(found.get("added_ttft_ms")),
                *(median(between.get(percent)) for percent in PERCENTILES),
            ]


def plot(document: Mapping[str, Any], file: Path) -> None:
    """Speed and time to first token over concurrency, and speed over the adapters in a batch."""
    sections = document["sections"]
    ways, many = sections["concurrency"], sections["adapters"]
    with canvas(file, 11, 4.2) as figure:
        speed, first, adapters = figure.subplots(1, 3)
        for colour, name in zip(COLOURS, ways[0]["targets"], strict=False):
            at = [cell["concurrency"] for cell in ways]
            told = {"color": colour, "marker": "o", "label": name}
            speed.plot(at, [_speed(cell, name) for cell in ways], **told)
            first.plot(at, [cell["targets"][name]["ttft_ms"]["p50"]["median"] for cell in ways], **told)
        for style, one in zip((":", "--"), sections.get("notebook", ()), strict=False):
            (name,) = one["targets"]
            speed.axhline(_speed(one, name), color=COLOURS[-1], linestyle=style, label=name)
        for name in many[0]["targets"]:
            colour = COLOURS[list(ways[0]["targets"]).index(name)]
            for skew, style, mark in (("uniform", "-", "o"), ("Zipf 1.0", "--", "s")):
                own = [cell for cell in many if cell["skew"] == skew]
                told = {"color": colour, "linestyle": style, "marker": mark, "label": skew}
                adapters.plot([cell["active"] for cell in own], [_speed(cell, name) for cell in own], **told)
        speed.set(title="output tokens per second", xlabel="requests at once", xscale="log", ylim=(0, None))
        first.set(title="time to first token, p50, ms", xlabel="requests at once", xscale="log", yscale="log")
        adapters.set(
            title=f"tokens per second, {many[0]['concurrency']} at once", xlabel="adapters in use", ylim=(0, None)
        )
        for axes in (speed, first):
            axes.set_xticks([cell["concurrency"] for cell in ways])
        adapters.legend(fontsize=8)
        figure.legend(*speed.get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8)


def _speed(cell: Mapping[str, Any], name: str) -> float:
    speed: float = cell["targets"][name]["tokens_per_s"]["median"]
    return speed

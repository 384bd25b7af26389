"""The result as JSON for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.document import aligned, cell, limits, median, short
from benchmarks.overhead import bars
from benchmarks.overhead.plan import MANY
from benchmarks.overhead.proxy import PACED, WHOLE
from benchmarks.overhead.targets import DIRECT, EVERYTHING, OURS
from record.drawing import COLOURS, canvas

WHOLE_COLUMNS = {
    "added p50 ms": "added_p50_ms",
    "p50": "p50_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "highest": "highest_ms",
    "requests/s": "requests_per_s",
}
STREAM_COLUMNS = {
    "CPU us/stream": "cpu_us_per_stream",
    "first byte: p50 ms": "first_byte_p50_ms",
    "p95": "first_byte_p95_ms",
    "p99": "first_byte_p99_ms",
    "last byte: p50 ms": "p50_ms",
    "highest": "highest_ms",
    "chunks/s": "chunks_per_s",
}


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    machine, sections = document["machine"], document["sections"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield f"load average before: {document['load_before']:.2g}; medians of rounds, [lowest..highest]"
    if "proxy" in sections:
        yield from _proxy(sections["proxy"])
    if "misses" in sections:
        yield from _misses(sections["misses"])
    if "uncached" in sections:
        yield "\nuncached decisions, p50 ms by tokens"
        yield from (f"  {tokens:>4}  {cell(took)}" for tokens, took in sections["uncached"]["p50_ms"].items())
    if "memory" in sections:
        memory = sections["memory"]
        yield "\nresident memory, MB"
        yield f"  {memory['after_start_mb']} after the start"
        yield f"  {memory['after_warm_up_mb']} with {memory['cached_texts']} texts known"
        yield f"  {memory['highest_mb']} at most, in {memory['requests']} requests"
    yield from limits(document)


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the README: the load that the limits are about, and how they were met."""
    if proxy := document["sections"].get("proxy"):
        found = [
            (kind, count, bars.cell(proxy, kind, count))
            for kind, count in ((WHOLE, MANY), (PACED, MANY), (WHOLE, 1))
        ]
        keys = (("CPU us a request", bars.CPU), ("CPU us a chunk", bars.CHUNK), ("added p50, ms", "added_p50_ms"))
        heads = [f"{what}; {kind}, {count}" for (kind, count, _), (what, _) in zip(found, keys, strict=True)]
        rows = [["", heads[0], f"{EVERYTHING} / this", *heads[1:]]]
        for target, version in proxy["targets"].items():
            cells = [
                measured.get(target, {}).get(key) for (_, _, measured), (_, key) in zip(found, keys, strict=True)
            ]
            ratio = found[0][2].get(target, {}).get("ratio_of_router_all_on", {}).get(bars.CPU)
            name = target if target in (DIRECT, *OURS) else f"{target} {version}"
            rows.append([name, cell(cells[0]), median(ratio), *map(cell, cells[1:])])
        yield from aligned(rows)
        yield from (f"{target}: {why}" for target, why in proxy["skipped"].items())
    if misses := document["sections"].get("misses"):
        yield from _misses(misses)
    yield from limits(document)


def plot(document: Mapping[str, Any], file: Path) -> None:
    """CPU time of a request, and of a chunk, beside other proxies."""
    proxy = document["sections"]["proxy"]
    panels = ((WHOLE, bars.CPU, "us of CPU a request"), (PACED, bars.CHUNK, "us of CPU a paced chunk"))
    with canvas(file, 10, 3.4) as figure:
        for axes, (kind, cost, title) in zip(figure.subplots(1, 2), panels, strict=True):
            measured = bars.cell(proxy, kind, MANY)
            shown = [name for name in reversed(list(measured)) if measured[name][cost]["median"] > 0]
            medians = [measured[name][cost]["median"] for name in shown]
            axes.barh(shown, medians, color=[COLOURS[0] if name in OURS else COLOURS[6] for name in shown])
            for place, value in enumerate(medians):
                axes.text(value, place, f" {short(value)}", va="center")
            axes.set_xscale("log")
            axes.set(title=f"{title}, {MANY} connections", xlim=(min(medians) / 2, max(medians) * 3))
            axes.grid(visible=False, axis="y")


def _proxy(section: Mapping[str, Any]) -> Iterator[str]:
    for scenario in section["scenarios"]:
        whole = scenario["kind"] == WHOLE
        cost, columns = ("cpu_us_per_request", WHOLE_COLUMNS) if whole else ("cpu_us_per_chunk", STREAM_COLUMNS)
        rows = [[f"{scenario['kind']}, {scenario['connections']}", "CPU us/request" if whole else "CPU us/chunk"]]
        rows[0] += [f"{EVERYTHING} / this", *columns]
        for target, found in scenario["measured"].items():
            ratio = found.get("ratio_of_router_all_on", {}).get(cost)
            rows.append(
                [target, cell(found[cost]), cell(ratio), *(median(found.get(key)) for key in columns.values())]
            )
        yield ""
        yield from aligned(rows)
        yield from (f"  {target}: {why}" for target, why in scenario["failed"].items())
    yield ""
    yield from (f"{target} {version}" for target, version in section["targets"].items())
    yield from (f"{target}: {why}" for target, why in section["skipped"].items())


def _misses(misses: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    rows = [[f"misses, {misses['connections']}", "without misses", "with misses", "ratio"]]
    for name, key in (("p50 ms of hits", "p50_ms_of_hits"), ("requests/s", "requests_per_s")):
        rows.append([name, *map(cell, misses[key].values())])
    yield from aligned(rows)
    yield f"  p50 ms of the {misses['misses']} misses: {cell(misses['p50_ms_of_misses'])}"

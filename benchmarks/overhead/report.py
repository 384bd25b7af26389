"""The result as JSON for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.document import aligned, cell, limits, median
from benchmarks.overhead.proxy import WHOLE
from benchmarks.overhead.targets import EVERYTHING

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
    yield from limits(document, lambda bar: f"at most {bar['most']:g} {bar['unit']}")


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

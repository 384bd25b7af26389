"""The result as JSON for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.document import aligned, cell, limits, median, short
from benchmarks.lag.library import ALL, GATHERED, GROUPED
from benchmarks.lag.wrapper import OURS, STOCK, WRAPPERS


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    machine, sections = document["machine"], document["sections"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield f"load average before: {document['load_before']:.2g}; medians of rounds, [lowest..highest]; one thread"
    if "wrapper" in sections:
        yield from _wrapper(sections["wrapper"])
    if "library" in sections:
        yield from _library(sections["library"])
    if "slots" in sections:
        yield from _slots(sections["slots"])

    def asked(bar: Mapping[str, Any]) -> str:
        return f"at least {bar['least']:g} times" if bar["most"] is None else f"at most {bar['most']:g} times"

    yield from limits(document, asked)


def _wrapper(section: Mapping[str, Any]) -> Iterator[str]:
    parameters = f"{section['parameters'] / 1e6:.0f} M parameters"
    yield f"\n{parameters}, {section['adapters']} adapters; ms of a step (of CPU time)"
    rows = [["", "rows", *WRAPPERS, f"{STOCK} / {OURS}"]]
    for case in section["cases"]:
        engines = case["engines"]
        ratio = engines.get(STOCK, {}).get("cpu_of", {}).get(OURS)
        times = [
            f"{median(engines[name]['ms'])} ({median(engines[name]['cpu_ms'])})" if name in engines else "-"
            for name in WRAPPERS
        ]
        rows.append([f"{case['phase']} {case['size']}", case["who"], *times, cell(ratio)])
    yield from aligned(rows)


def _library(section: Mapping[str, Any]) -> Iterator[str]:
    yield "\none projection: us a token and layer; MB of scores' constants and of Arrow's table"
    rows = [["in", "r", "n", "k", "tokens", ALL, GATHERED, GROUPED, "A", "constants", "table"]]
    for one in section["cells"]:
        took = [median(one["us_a_token"].get(way)) for way in (ALL, GATHERED, GROUPED)]
        sizes = [short(one["mb"][part]) for part in ("a", "w", "v1")]
        rows.append([*(str(one[name]) for name in ("inputs", "rank", "n", "k", "tokens")), *took, *sizes])
    yield from aligned(rows)


def _slots(section: Mapping[str, Any]) -> Iterator[str]:
    each = section["library_slot_mb"]
    yield f"\n{section['model']}, rank {section['rank']}, all linear modules, bf16, computed"
    yield f"  a slot: {short(section['slot_mb'])} MB"
    yield f"  a member of a library: {short(each['GPU'])} MB (GPU), {short(each['CPU'])} MB (CPU)"
    yield from (f"  {place['name']}: {place['slots']} beside base and KV cache" for place in section["places"])

"""The result as JSON for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.document import aligned, cell, limits, median, short
from benchmarks.lag.library import ALL, GATHERED, GROUPED
from benchmarks.lag.wrapper import DECODE, OURS, PREFILL, STOCK, WITH_LAG, WITHOUT, WRAPPERS
from record.drawing import COLOURS, canvas


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

    yield from limits(document)


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the README: of the libraries only the largest projection and rank, and one token or a prompt."""
    sections = document["sections"]
    if "wrapper" in sections:
        yield from _wrapper(sections["wrapper"])
    if library := sections.get("library"):
        most = {name: max(one[name] for one in library["cells"]) for name in ("inputs", "rank", "tokens")}
        wide = [one for one in library["cells"] if (one["inputs"], one["rank"]) == (most["inputs"], most["rank"])]
        yield from _library({"cells": [one for one in wide if one["tokens"] in (1, most["tokens"])]})
    if "slots" in sections:
        yield from _slots(sections["slots"])
    yield from limits(document)


def plot(document: Mapping[str, Any], file: Path) -> None:
    """CPU time of a prompt, and of a token at several batch sizes: no LoRA, stock vLLM, the plugin, and LAG."""
    cases = document["sections"]["wrapper"]["cases"]
    lines = {WITHOUT: "base", STOCK: "each", OURS: "each", WITH_LAG: "lag"}
    with canvas(file, 10, 3.6) as figure:
        prompt, token = figure.subplots(1, 2)
        for number, (engine, who) in enumerate(lines.items()):
            # One row has one adapter, which is what "each" has with more rows; so has a prompt.
            wanted = (who, "one") if who == "each" else (who,)
            mine = [case for case in cases if case["who"] in wanted and engine in case["engines"]]
            took = {(case["phase"], case["who"], case["size"]): case["engines"][engine]["cpu_ms"] for case in mine}
            prompts = [spread["median"] for (phase, _, _), spread in took.items() if phase == PREFILL]
            name = f"{engine}, {'an adapter each' if who == 'each' else who}"
            bars = prompt.barh([name], prompts, color=COLOURS[number])
            prompt.bar_label(bars, [f" {short(one)}" for one in prompts])
            # Later ones replace earlier: of "one" and "each" at the same size, "each".
            steps = {size: spread["median"] for (phase, _, size), spread in took.items() if phase == DECODE}
            token.plot(list(steps), list(steps.values()), "o-", color=COLOURS[number], label=name)
        prompt.invert_yaxis()
        prompt.set(title="ms of CPU time, a prompt of 512 tokens")
        prompt.margins(x=0.15)
        prompt.grid(visible=False, axis="y")
        token.set(title="ms of CPU time, one token for every row", xlabel="rows", ylim=(0, None))
        token.legend()


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

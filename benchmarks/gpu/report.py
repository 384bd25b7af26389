"""The result as tables for people, and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import VERDICTS, aligned, cell, limits, median, short
from benchmarks.gpu.bars import decode, prefill
from benchmarks.gpu.blocks import AUTO, BASE_ONLY, DIRECT, TUNED, WITH_LAG

NOT_YET = "not yet run on a GPU"
TITLES = {
    "modes": "every way to serve them, at once",
    "roofline": "one request after the other, against the device's bounds",
    "lag": "LAG by batch, and by size of the library and k",
    "notebook": "beside a notebook",
    "counts": "by adapters in use, each with a slot",
    "latency": "by concurrency",
    "cliff": "adapters in use against slots",
}


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    if not document:
        yield NOT_YET
        return
    machine, sections = document["machine"], document["sections"]
    cards = ", ".join(f"{gpu['name']} ({gpu['memory_gb']} GB)" for gpu in machine["gpus"]) or "no GPU"
    yield f"{cards}; {machine['cpu']}, {machine['cores']} cores; vLLM {document['versions'].get('vllm')}"
    if document["plan"]["device"] == "cpu":
        yield "a tiny model on the CPU: the numbers mean nothing"
    yield "random weights: speed does not depend on their values; medians of rounds, [lowest..highest]"
    yield from _engines(document["engines"])
    for name, right in document.get("checks", {}).items():
        yield f"  {name}: {VERDICTS[right]}"
    for name, title in TITLES.items():
        if name in sections:
            yield f"\n{name}: {title}{_older(document, sections[name])}"
            yield from _block(sections[name])
    yield from _bounds(sections)

    yield from limits(document)


def _older(document: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """Of a block that was kept of an earlier run: which."""
    commit = section.get("commit", document["commit"])
    return "" if commit == document["commit"] else f" (of {section['date'][:10]}, commit {commit[:12]})"


def _engines(engines: Any) -> Iterator[str]:
    yield "\nengines, all started at once"
    rows = [["", "slots", "adapters", "boot s", ""]]
    for one in engines:
        boot = "-" if one["boot_s"] is None else short(one["boot_s"])
        rows.append([one["name"], str(one["slots"]), str(one["adapters"]), boot, one["why"]])
    yield from aligned(rows)


def _block(found: Mapping[str, Any]) -> Iterator[str]:
    if "cells" not in found:
        yield f"  not measured: {found['why']}"
        return
    rows = [["", "", "tokens/s", "of direct", "first token ms: p50", "p95", "p99", "step ms", "rounds", "checks"]]
    for one in found["cells"]:
        for name, target in one["targets"].items():
            of = target.get("speed_of_reference")
            first = [median(target.get("ttft_ms", {}).get(percent)) for percent in ("p50", "p95", "p99")]
            step = median(target.get("itl_ms", {}).get("p50"))
            rounds = str(target["tokens_per_s"]["rounds"])
            told = [one["name"], name, cell(target["tokens_per_s"]), cell(of)]
            rows.append([*told, *first, step, rounds, _checks(target)])
    yield from aligned(rows)
    for one in found["cells"]:
        yield from (f"  {one['name']}: {why}" for why in one["left_out"].values())


def _checks(target: Mapping[str, Any]) -> str:
    """How many answers beside the load were as they are alone; how often `auto` chose the right adapter."""
    same, agreed = target.get("same_under_load"), target.get("agreed")
    told = [f"{same['same']} of {same['answers']} alike"] if same else []
    return ", ".join([*told, *([f"{agreed['median']:.1%} right"] if agreed else [])])


def _bounds(sections: Mapping[str, Any]) -> Iterator[str]:
    roof = sections.get("roofline", {}).get("roof")
    if not roof:
        return
    tera = (roof["bytes_per_s"] / 1e12, roof["flop_per_s"] / 1e12)
    yield f"\nbounds: memory {tera[0]:.3g} TB/s (a copy), matrices {tera[1]:.3g} TFLOP/s ({roof['device']})"
    rows = [["", "", "bound ms", "time of the bound"]]
    for one in sections["roofline"]["cells"]:
        is_decode = one["phase"] == "decode"
        bound = one["bytes"] / roof["bytes_per_s"] if is_decode else one["flop"] / roof["flop_per_s"]
        for name in one["targets"]:
            times = (
                decode(sections, one["rows"], name) if is_decode else prefill(sections, one["prompt_tokens"], name)
            )
            rows.append([one["name"], name, short(1e3 * bound), "-" if times is None else short(times)])
    yield from aligned(rows)


def plot(document: Mapping[str, Any], file: Path) -> None:
    """Tokens per second of every way, and by adapters in use; of a run that did not get so far, decode and LAG.

    Raises ValueError where nothing was measured.
    """
    from record.drawing import canvas

    cells = {name: one.get("cells", ()) for name, one in document["sections"].items()}
    decodes = [one for one in cells.get("roofline", ()) if one["phase"] == "decode"]
    ways = [*cells.get("modes", ()), *decodes[-1:]]
    if not ways:
        raise ValueError(NOT_YET)
    with canvas(file, 9, 3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _ways(left, ways[0])
        if counts := cells.get("counts"):
            _lines(right, counts, "adapters", (BASE_ONLY, TUNED, AUTO))
            right.set_title("all in slots")
            right.set_xlabel("adapters in use")
        elif lags := [one for one in cells.get("lag", ()) if "library" in one]:
            _lines(right, lags, "rows", (DIRECT, WITH_LAG))
            right.set_title("LAG beside fixed adapters")
            right.set_xlabel("requests at once")


def _ways(axes: Any, cell: Mapping[str, Any]) -> None:
    """One bar for each target, with its spread."""
    from record.drawing import COLOURS

    names = list(cell["targets"])[::-1]
    spreads = [cell["targets"][name]["tokens_per_s"] for name in names]
    errors = [[one["median"] - one["low"] for one in spreads], [one["high"] - one["median"] for one in spreads]]
    axes.barh(
        names, [one["median"] for one in spreads], xerr=errors, color=[_colour(name, COLOURS) for name in names]
    )
    axes.set_title(f"{cell['concurrency']} requests at once")
    axes.set_xlabel("output tokens/s")


def _lines(axes: Any, cells: Sequence[Mapping[str, Any]], along: str, names: Sequence[str]) -> None:
    """Medians over one fact of the cells."""
    from record.drawing import COLOURS

    for place, name in enumerate(names):
        points = [(one[along], one["targets"][name]) for one in cells if name in one["targets"]]
        speeds = [target["tokens_per_s"]["median"] for _, target in points]
        axes.plot([at for at, _ in points], speeds, marker="o", label=name, color=COLOURS[place])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("output tokens/s")
    axes.legend()


def _colour(name: str, colours: tuple[str, ...]) -> str:
    return colours[{BASE_ONLY: 6, DIRECT: 0, AUTO: 2}.get(name, 5)]

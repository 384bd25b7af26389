"""The limits that the project has set itself for a GPU, each held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.document import Bar
from benchmarks.gpu.blocks import AUTO, BASE_ONLY, BATCHED, DIRECT, ONE, WITH_LAG


def bars(sections: Mapping[str, Any]) -> list[Bar]:
    """All of them, in the order of the issue; speeds are output tokens per second, ratios of the same round."""
    modes, book = cell(sections, "modes", "modes"), cell(sections, "notebook", "notebook")
    return [
        Bar("adapters through auto, speed of base only", speed(modes, AUTO, BASE_ONLY), 0.90),
        Bar("adapters through auto, speed of direct", speed(modes, AUTO, DIRECT), 0.98),
        Bar("auto, speed of the notebook, one at a time", speed(book, AUTO, ONE), 25),
        Bar("auto, speed of the notebook, batched per adapter", speed(book, AUTO, BATCHED), 25),
        Bar("lag, speed of fixed adapters", speed(modes, WITH_LAG, DIRECT), 0.85),
        Bar("decode at batch 1, time of the memory's bound", decode(sections, 1, BASE_ONLY), most=1.4),
    ]


def cell(sections: Mapping[str, Any], block: str, name: str) -> Mapping[str, Any]:
    """Empty where it was not measured."""
    found = sections.get(block, {}).get("cells", ())
    return next((one for one in found if one["name"] == name), {})


def speed(found: Mapping[str, Any], name: str, of: str) -> float | None:
    """Median over rounds."""
    targets = found.get("targets", {})
    if name not in targets or of not in targets:
        return None
    mine, its = (targets[one]["turns"]["tokens_per_s"] for one in (name, of))
    return float(median(one / other for one, other in zip(mine, its, strict=False)))


def decode(sections: Mapping[str, Any], rows: int, name: str) -> float | None:
    """A step's time over that of reading its bytes once."""
    found, roof = cell(sections, "roofline", f"decode {rows}"), sections.get("roofline", {}).get("roof")
    if not roof or name not in found.get("targets", {}):
        return None
    step_ms: float = found["targets"][name]["itl_ms"]["p50"]["median"]
    return step_ms / (1e3 * float(found["bytes"]) / float(roof["bytes_per_s"]))


def prefill(sections: Mapping[str, Any], tokens: int, name: str) -> float | None:
    """A prompt's time over that of its operations at the matrix units' rate."""
    found, roof = cell(sections, "roofline", f"prefill {tokens}"), sections.get("roofline", {}).get("roof")
    if not roof or name not in found.get("targets", {}):
        return None
    first_ms: float = found["targets"][name]["ttft_ms"]["p50"]["median"]
    return first_ms / (1e3 * float(found["flop"]) / float(roof["flop_per_s"]))

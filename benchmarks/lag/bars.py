"""The limits that the project has set itself, each held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.document import Bar
from benchmarks.lag.wrapper import DECODE, OURS, PREFILL, STOCK, WITHOUT


def bars(sections: Mapping[str, Any]) -> list[Bar]:
    """All of them, in the order of the issue; ratios of CPU time."""
    cases = {
        (case["phase"], case["who"], case["size"]): case for case in sections.get("wrapper", {}).get("cases", ())
    }
    base = [case for case in cases if case[1] == "base"] or [(PREFILL, "base", 512)]
    return [
        Bar("prefill of 512 tokens, stock's time of ours", _ratio(cases, (PREFILL, "one", 512), STOCK, OURS), 3.0),
        Bar("decode of 8 rows, stock's time of ours", _ratio(cases, (DECODE, "each", 8), STOCK, OURS), 1.2),
        *(
            Bar(
                f"base requests, {case[0]} {case[2]}, of the time without LoRA",
                _ratio(cases, case, OURS, WITHOUT),
                most=1.03,
            )
            for case in base
        ),
    ]


def _ratio(cases: Mapping[Any, Any], case: tuple[str, str, int], name: str, of: str) -> float | None:
    """The median over rounds."""
    spread = cases.get(case, {}).get("engines", {}).get(name, {}).get("cpu_of", {}).get(of)
    return spread["median"] if spread else None

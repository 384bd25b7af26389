"""`python -m benchmarks.overhead`: what the router costs, beside nginx and other LLM proxies."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.document import command, result
from benchmarks.overhead import memory, misses, proxy, uncached
from benchmarks.overhead.bars import bars
from benchmarks.overhead.options import Options, parse
from benchmarks.overhead.plan import FULL, QUICK
from benchmarks.overhead.report import tables
from benchmarks.overhead.targets import Bench, bench
from record.origin import origin

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "proxy": proxy.section,
    "misses": misses.section,
    "uncached": uncached.section,
    "memory": memory.section,
}
PACKAGES = ("uvicorn", "uvloop", "httptools", "orjson", "aiohttp", "onnxruntime", "tokenizers")


def main() -> int:
    """Exit code 1: an answer was wrong, or nothing could be measured; 130: interrupted. A missed limit is 0."""
    options = parse(sys.argv[1:])
    return command("benchmarks.overhead", options.output, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """Run the sections. Raises BenchmarkError."""
    plan = QUICK if options.quick else FULL
    plan = replace(plan, with_peers=plan.with_peers and options.with_peers)
    made_by, began = origin("benchmarks.overhead", sys.argv[1:], PACKAGES), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="overhead-") as folder,
        bench(plan, Path(folder), options.router, options.peers, options.first_port) as shared,
    ):
        found = {name: SECTIONS[name](shared) for name in options.sections}
    return result("overhead", made_by, plan, time.monotonic() - began, found, bars(found))


if __name__ == "__main__":
    sys.exit(main())

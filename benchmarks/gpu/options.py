"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

BLOCKS = ("modes", "roofline", "lag", "notebook", "counts", "latency", "cliff")

ABOUT = """\
What adapters, the router and LAG cost on a GPU, and what the GPU's bounds are.

Makes a base of Mistral-7B's shape and adapters for it, with random weights: needs no hub and no weights. Starts
all engines at once, measures block after block, and writes the result after each. A block that the file has
already, of the same card and vLLM, is measured again only where --block names it. Progress on stderr, tables on
stdout. See benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """What to run, for how long, and where everything goes; `commit` where git cannot tell it."""

    cpu: bool
    out: Path | None
    logs: Path | None
    budget_s: float
    blocks: tuple[str, ...]
    again: tuple[str, ...]  # whether the file has them or not
    engine: tuple[str, ...]
    commit: str


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cpu", action="store_true", help="a tiny model on the CPU: does it run? The numbers mean nothing")
    add("--out", type=Path, metavar="FILE", help="the result (default: benchmarks/results/gpu.json; --cpu: none)")
    add("--logs", type=Path, metavar="DIR", help="keep what engines and routers say there (default: nowhere)")
    add("--budget", type=float, default=900.0, metavar="S", help="seconds for everything (default: %(default)g)")
    add("--block", action="append", choices=BLOCKS, help="only this one; may be given several times")
    add("--engine-arg", action="append", default=[], metavar="ARG", help="one more of vLLM's, as --engine-arg=-O1")
    add("--commit", default="", metavar="HASH", help="of this checkout, where there is no git to ask")
    given = parser.parse_args(arguments)
    out = given.out or (None if given.cpu else ROOT / "benchmarks" / "results" / "gpu.json")
    again = tuple(name for name in BLOCKS if name in (given.block or ()))
    return Options(
        given.cpu, out, given.logs, given.budget, again or BLOCKS, again, tuple(given.engine_arg), given.commit
    )

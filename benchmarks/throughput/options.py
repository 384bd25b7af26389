"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

SECTIONS = ("concurrency", "uncached", "adapters", "merged", "notebook")

ABOUT = """\
Tokens per second and latencies of every way to serve adapters, on the demo's models.

Starts engines with and without LoRA, the router, and a notebook's process, asks them in interleaved rounds with
vLLM's own load client, and ends them all. Progress on stderr, tables on stdout, the result as JSON. See
benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """What to run, and where the result goes."""

    sections: tuple[str, ...]
    quick: bool
    output: Path | None
    first_port: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--section", action="append", choices=SECTIONS, help="only this one; may be given several times")
    add(
        "--quick",
        action="store_true",
        help="a minute and the engines' start: does it run? The numbers mean nothing",
    )
    output = "the result (default: benchmarks/results/throughput.json for a whole run, otherwise no file)"
    add("--output", type=Path, metavar="FILE", help=output)
    add("--first-port", type=int, metavar="PORT", help="take ports from here on (default: any free ones)")
    given = parser.parse_args(arguments)
    file = given.output
    if file is None and not given.quick and not given.section:
        file = ROOT / "benchmarks" / "results" / "throughput.json"
    return Options(tuple(given.section or SECTIONS), given.quick, file, given.first_port)

"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

ABOUT = """\
What it costs to use more adapters than an engine has slots, in random order and grouped by adapter.

Starts three engines with the demo's models: with a slot for every adapter, with few slots and all adapters in
memory, and with few of both. Asks them in interleaved rounds with vLLM's own load client, and ends them all.
Progress on stderr, tables on stdout, the result as JSON. See benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """How much to run, and where the result goes."""

    quick: bool
    output: Path | None
    first_port: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cliff", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="a minute and the engines' start: does it run? The numbers mean nothing",
    )
    output = "the result (default: benchmarks/results/cliff.json for a whole run, otherwise no file)"
    add("--output", type=Path, metavar="FILE", help=output)
    add("--first-port", type=int, metavar="PORT", help="take ports from here on (default: any free ones)")
    given = parser.parse_args(arguments)
    file = given.output
    if file is None and not given.quick:
        file = ROOT / "benchmarks" / "results" / "cliff.json"
    return Options(given.quick, file, given.first_port)

"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

SECTIONS = ("wrapper", "library", "slots")

ABOUT = """\
What adapters and LAG cost on the CPU beside stock vLLM, and what large libraries cost.

Makes a base with random weights and adapters for it, holds four engines open and asks them in turn. Progress on
stderr, tables on stdout, the result as JSON. See benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """What to run, and where the result goes."""

    sections: tuple[str, ...]
    quick: bool
    output: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lag", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--section", action="append", choices=SECTIONS, help="only this one; may be given several times")
    add("--quick", action="store_true", help="two minutes, a tiny base: does it run? The numbers mean nothing")
    output = "the result (default: benchmarks/results/lag.json for a whole run, otherwise no file)"
    add("--output", type=Path, metavar="FILE", help=output)
    given = parser.parse_args(arguments)
    file = given.output
    if file is None and not given.quick and not given.section:
        file = ROOT / "benchmarks" / "results" / "lag.json"
    return Options(tuple(given.section or SECTIONS), given.quick, file)

"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

ABOUT = """\
How long the demo stack takes to boot, and to add and remove an adapter while it serves; on request also to install
and to build.

Progress on stderr, tables on stdout, the result as JSON. See benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """What to run, and where the result goes."""

    install: bool
    build: bool
    quick: bool
    output: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--install", action="store_true", help="also `make install` in a fresh clone: minutes, and 5 GB of disk")
    add("--build", action="store_true", help="also `python -m demo build` from nothing: minutes")
    add("--quick", action="store_true", help="one boot, one adapter: does it run? The numbers mean little")
    output = "the result (default: benchmarks/results/startup.json with --install and --build, otherwise no file)"
    add("--output", type=Path, metavar="FILE", help=output)
    given = parser.parse_args(arguments)
    file = given.output
    if file is None and given.install and given.build and not given.quick:
        file = ROOT / "benchmarks" / "results" / "startup.json"
    return Options(given.install, given.build, given.quick, file)

"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

SECTIONS = ("speed", "accuracy", "peers")

ABOUT = """\
What a decision costs, and how often it is right: every classifier of the router, and other routers by content.

Starts a stub engine, the demo's engine, a router for every classifier and the peers that are found, asks them over
HTTP, and ends them all. Progress on stderr, tables on stdout, the result as JSON. See benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """What to run, on what, and where the result goes."""

    sections: tuple[str, ...]
    quick: bool
    output: Path | None
    data: tuple[Path, ...]
    most: int | None
    nli: str | None
    peers: Path
    first_port: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--section", action="append", choices=SECTIONS, help="only this one; may be given several times")
    add("--quick", action="store_true", help="a minute, neither engine nor peers: does it run?")
    output = "the result (default: benchmarks/results/routing.json for a whole run, otherwise no file)"
    add("--output", type=Path, metavar="FILE", help=output)
    add("--data", action="append", type=Path, default=[], metavar="FILE", help="labelled rows beside the demo's")
    most = "judge N rows at most of the demo's and of each file's, evenly spaced (default: all)"
    add("--most", type=int, metavar="N", help=most)
    add("--nli", metavar="MODEL", help="weights for nli: a folder or a hub id (default: see benchmarks/README.md)")
    peers = "virtual environments of the peers (default: .venv-peers)"
    add("--peers", type=Path, default=ROOT / ".venv-peers", metavar="DIR", help=peers)
    add("--first-port", type=int, metavar="PORT", help="take ports from here on (default: any free ones)")
    given = parser.parse_args(arguments)
    if given.most is not None and given.most < 1:
        parser.error(f"--most: at least 1 (got {given.most})")
    output_file = given.output
    if output_file is None and not given.quick and not given.section:
        output_file = ROOT / "benchmarks" / "results" / "routing.json"
    return Options(
        tuple(given.section or SECTIONS), given.quick, output_file, tuple(given.data), given.most, given.nli,
        given.peers.absolute(), given.first_port,
    )  # fmt: skip

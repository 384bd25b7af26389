"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record.origin import ROOT

SECTIONS = ("proxy", "misses", "uncached", "memory")

ABOUT = """\
What the router costs per request and per streamed chunk, beside nginx and other LLM proxies.

Starts a stub engine, a load client and every proxy that is found, measures them in interleaved rounds, and ends
them all. Progress on stderr, tables on stdout, the result as JSON. See benchmarks/README.md."""


@dataclass(frozen=True)
class Options:
    """What to run, on what, and where the result goes."""

    sections: tuple[str, ...]
    quick: bool
    with_peers: bool
    output: Path | None
    peers: Path
    router: Path
    first_port: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Ends the process where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--section", action="append", choices=SECTIONS, help="only this one; may be given several times")
    add("--quick", action="store_true", help="half a minute, no peers: does it run? The numbers mean nothing")
    add("--no-peers", action="store_true", help="only the stub and the router")
    output = "the result (default: benchmarks/results/overhead.json for a whole run, otherwise no file)"
    add("--output", type=Path, metavar="FILE", help=output)
    peers = "virtual environments of the peers (default: .venv-peers)"
    add("--peers", type=_folder, default=ROOT / ".venv-peers", metavar="DIR", help=peers)
    router = "the checkout whose router is measured (default: this one)"
    add("--router", type=_folder, default=ROOT, metavar="DIR", help=router)
    ports = "take ports from here on (default: any free ones)"
    add("--first-port", type=int, metavar="PORT", help=ports)
    given = parser.parse_args(arguments)
    output_file = given.output
    if output_file is None and not (given.quick or given.no_peers or given.section):
        output_file = ROOT / "benchmarks" / "results" / "overhead.json"
    sections = tuple(given.section or SECTIONS)
    return Options(
        sections, given.quick, not given.no_peers, output_file, given.peers, given.router, given.first_port
    )


def _folder(name: str) -> Path:
    """As an absolute path: the proxies run in folders of their own."""
    return Path(name).absolute()

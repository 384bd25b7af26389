"""`python -m demo build`: make the embedded base and adapters in .demo/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.build import OUT, build
from demo.corpus import CorpusError


def main(argv: list[str] | None = None) -> int:
    """Exit code 2 when the corpus is at fault."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The embedded stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="make the tiny base and its three adapters (skipped when unchanged)")
    make.add_argument("--out", type=Path, default=OUT, help="where to (default: .demo)")
    make.add_argument("--force", action="store_true", help="build even if nothing has changed")
    arguments = parser.parse_args(argv)
    try:
        build(arguments.out, arguments.force)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

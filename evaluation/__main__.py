"""`python -m evaluation routing`, `adapters`, `lag`, `safety` or `replay`: a table, and a report in reports/."""

from __future__ import annotations

import argparse
import sys

from adapters import ConfigError
from evaluation.adapters import command as adapters
from evaluation.lag import command as lag
from evaluation.replay import command as replay
from evaluation.routing import command as routing
from evaluation.routing.rows import HALF, DataError
from evaluation.safety import command as safety


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 a report was made (it counts the rows that were left out), 1 what it checks does not hold,
    2 data or stack are at fault."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m evaluation", description="Reports on what is chosen.")
    commands = parser.add_subparsers(dest="command", required=True)
    routing.add_arguments(commands.add_parser("routing", help="the router's decisions against labelled texts"))
    adapters.add_arguments(
        commands.add_parser("adapters", help="every adapter of a running stack against its base, and the router")
    )
    lag.add_arguments(
        commands.add_parser("lag", help="LAG's choice per token against routers and the right adapter")
    )
    replay.add_arguments(
        commands.add_parser("replay", help="logged requests decided again under other settings, and what changes")
    )
    safety.add_arguments(
        commands.add_parser(
            "safety", help="disclaimers and emergencies of a running stack; exit code 1: one lacks"
        )
    )
    if HALF.search(" ".join(argv)):
        parser.error("the arguments are not UTF-8, and a report quotes them")
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments, argv) or 0)
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

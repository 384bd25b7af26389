"""`python -m demo build|knowledge|up`: make the embedded models, or those of the knowledge tasks, or serve."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from adapters import ConfigError
from demo.build import OUT, build
from demo.corpus import CorpusError
from demo.knowledge.build import OUT as KNOWLEDGE
from demo.knowledge.build import build as build_knowledge
from demo.up import up
from serve.process.supervisor import StartError


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 a sample went wrong or a process could not start, 2 corpus or stack is at fault."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The embedded stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="make the tiny base and its three adapters (skipped when unchanged)")
    make.add_argument("--out", type=Path, default=OUT, help="where to (default: .demo)")
    make.add_argument("--force", action="store_true", help="build even if nothing has changed")
    knowledge = commands.add_parser("knowledge", help="make the knowledge tasks: two libraries of 24 adapters")
    knowledge.add_argument("--out", type=Path, default=KNOWLEDGE, help="where to (default: .models/knowledge)")
    knowledge.add_argument("--force", action="store_true", help="build even if nothing has changed")
    serve = commands.add_parser("up", help="build what is missing, serve it, ask it one question per domain")
    serve.add_argument("--once", action="store_true", help="stop after the samples")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "build":
            build(arguments.out, arguments.force)
            return 0
        if arguments.command == "knowledge":
            build_knowledge(arguments.out, arguments.force)
            return 0
        # A process of its own: training's threads and memory would stay with the supervisor otherwise.
        built = subprocess.run([sys.executable, "-m", "demo", "build"], check=False).returncode
        return built or up(arguments.once, lambda line: print(line, flush=True))
    except (CorpusError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; a build begins anew next time", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""`python -m serve [up|engine|check|init DIR] [--config adapters.yaml]`: the stack, its engine alone, or none."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from adapters import ConfigError, check_port, load
from serve import init
from serve.process.lock import hold
from serve.process.supervisor import StartError, Supervisor
from serve.stack import check_ports, plan

SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)


def main() -> int:
    """Exit codes: 0 fine, 1 a process could not start, 2 the stack cannot work as written."""
    if sys.argv[1:2] == ["init"]:
        return init.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    parser.add_argument(
        "command", nargs="?", default="up", choices=["up", "engine", "check", "init"],
        help="up: engine, router and page under one supervisor; engine: vLLM alone, in the foreground; "
        "check: explain what would start, and start nothing; init DIR: write adapters.yaml from adapters in DIR",
    )  # fmt: skip
    parser.add_argument("--config", default="adapters.yaml", help="the stack (default: %(default)s)")
    parser.add_argument("--run-dir", type=Path, default=Path(".run"), help="logs (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        stack = load(arguments.config)
        planned = plan(stack, arguments.run_dir)
        for note in planned.notes:
            say(note)
        for line in planned.broken if arguments.command != "check" else ():
            say(f"not served: {line}")
        if arguments.command == "check":
            for service in planned.services:
                env = " ".join(f"{key}={_shown(key, value)}" for key, value in service.env.items())
                say(f"{service.name}: {service.url}: {env} {shlex.join(service.argv)}")
            if planned.broken:
                raise ConfigError("\n".join(planned.broken))
            check_ports(stack)
            return 0
        if arguments.command == "engine":
            if planned.engine is None:
                raise stack.error("engine.url", "is set, so there is no engine to start here")
            check_port(stack, "engine.port", "127.0.0.1", stack.engine.port)
            os.execve(planned.engine.argv[0], planned.engine.argv, os.environ | planned.engine.env)
        with hold(arguments.run_dir) as lock:
            check_ports(stack)
            return Supervisor(planned.services, say, lock=lock).run()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except StartError as error:
        print(error, file=sys.stderr)
        return 1


def _shown(key: str, value: str) -> str:
    return "(hidden)" if SECRET.search(key) else shlex.quote(value)


def say(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

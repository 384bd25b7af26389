"""`python -m serve [COMMAND] [--config adapters.yaml] [--run-dir .run]`: a stack, its engine, its adapters."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adapters import ConfigError, ControlError, Stack, load
from serve import init, manage
from serve.process.lock import owner
from serve.process.supervisor import StartError
from serve.run import ENGINE, run
from serve.stack import Plan, check_ports, plan

SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
SECRET_OPTION = re.compile(r"--(.*-)?(token|key|secret|password)")

COMMANDS = """commands:
  up                   engine, router and page under one supervisor (default)
  engine               the engine and its adapters alone
  check                explain what would start, and start nothing
  init DIR             write adapters.yaml from adapters in DIR
 of a stack that runs:
  list                 its adapters: state, version, slot, requests under way
  add NAME PATH        load, test and route to an adapter, or to a new version of one
  test NAME            its self-test once more, while it serves
  remove NAME          stop routing to it, wait for its last answer, unload it
  reload               apply what was edited in adapters.yaml (SIGHUP does, too)

init, list, add, test, remove and reload have a --help of their own"""


def main() -> int:
    """Exit codes: 0 fine, 1 a process did not start, or the stack that runs refuses, 2 what is asked is wrong."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if command == "init":
            return init.main(sys.argv[2:])
        if command in manage.COMMANDS:
            return manage.main(sys.argv[1:])
        arguments = _arguments()
        stack = load(arguments.config)
        planned = plan(stack, arguments.run_dir)
        for note in planned.notes:
            say(note)
        if arguments.command == "check":
            return _check(stack, planned, arguments.run_dir)
        if arguments.command == "engine":
            planned = _engine_alone(stack, planned)
        for line in planned.broken:
            say(f"not served: {line}")
        return run(stack, planned, arguments.run_dir, say)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (StartError, ControlError) as error:
        print(error, file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serve", description=__doc__, epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    choices = ("up", "engine", "check", "init", *manage.COMMANDS)
    parser.add_argument("command", nargs="?", default="up", choices=choices, metavar="COMMAND", help="see below")
    parser.add_argument("--config", default="adapters.yaml", help="the stack (default: %(default)s)")
    parser.add_argument(
        "--run-dir", type=Path, default=Path(".run"), help="logs, lock and socket (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.command in ("init", *manage.COMMANDS):
        parser.error(f"write {arguments.command} first: python -m serve {arguments.command} …")
    return arguments


def _check(stack: Stack, planned: Plan, run_dir: Path) -> int:
    for service in planned.services:
        env = " ".join(f"{key}={_shown(key, value)}" for key, value in service.env.items())
        say(f"{service.name}: {service.url}: {env} {_line(service.argv)}")
    if planned.broken:
        raise ConfigError("\n".join(planned.broken))
    if pid := owner(run_dir):  # it may be this very stack, whose edited file is checked before a reload
        say(f"ports: not tried, a stack runs in {run_dir} (pid {pid})")
    else:
        check_ports(stack)
    return 0


def _engine_alone(stack: Stack, planned: Plan) -> Plan:
    if planned.engine is None:
        raise stack.error("engine.url", "is set, so there is no engine to start here")
    return replace(planned, services=tuple(each for each in planned.services if each.name == ENGINE))


def _line(argv: Sequence[str]) -> str:
    """As a shell takes it, but for the values of options that are secret."""
    pairs = zip(("", *argv), argv, strict=False)
    return " ".join("(hidden)" if SECRET_OPTION.fullmatch(option) else shlex.quote(word) for option, word in pairs)


def _shown(key: str, value: str) -> str:
    return "(hidden)" if SECRET.search(key) else shlex.quote(value)


def say(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

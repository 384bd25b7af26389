"""Ways to decide, side by side: each classifier, all of them in a row, and each before and after its fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adapters import Calibration, ClassifierName, Stack
from evaluation.routing import metrics
from evaluation.routing.figures import Figures, figures
from evaluation.routing.fit import fit_temperature, fit_threshold, seen
from evaluation.routing.judge import Judge, Recorded, Stage
from evaluation.routing.mistakes import Mistake, worst
from evaluation.routing.rows import DataError, Row

FEWEST = 10
"""Rows that a fit wants on either half."""

Records = Mapping[ClassifierName, Recorded]
Calibrations = Mapping[ClassifierName, Calibration]


@dataclass(frozen=True)
class Column:
    """One way to decide some rows."""

    title: str
    calibrations: Calibrations
    judge: Judge
    rows: Sequence[Row]

    def figures(self) -> Figures:
        """All that is reported of it."""
        return figures(self.title, self.calibrations, self.judge, self.rows)

    def mistakes(self) -> list[Mistake]:
        """Its worst ones."""
        return worst(self.judge, self.rows)


def columns(
    stack: Stack, records: Records, calibrations: Calibrations, rows: Sequence[Row], when: str = ""
) -> list[Column]:
    """Each classifier alone; where there are several, also the row of them that the router would ask."""
    ways = [(name,) for name in records] + ([tuple(records)] if len(records) > 1 else [])
    found = []
    for way in ways:
        judge = Judge(stack, [Stage.of(records[name], calibrations[name]) for name in way])
        found.append(Column(" → ".join(way) + when, {name: calibrations[name] for name in way}, judge, rows))
    return found


def halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to fit on, and rows that the fit does not see. Raises DataError where either half is too small."""
    fitting, unseen = [row for row in rows if seen(row.text)], [row for row in rows if not seen(row.text)]
    if min(len(fitting), len(unseen)) < FEWEST:
        raise DataError(
            f"--fit: {len(fitting)} rows to fit on and {len(unseen)} to show it on; it needs {FEWEST} of each"
        )
    return fitting, unseen


def fitted(stack: Stack, recorded: Recorded, before: Calibration, rows: Sequence[Row]) -> Calibration:
    """The temperature first, the threshold on the probabilities that it makes.

    Late texts count: what logits mean does not depend on the machine. Raises DataError where too few have any.
    """

    def judge(temperature: float) -> Judge:
        return Judge(stack, [Stage(recorded, temperature, before.threshold or 0.0)], timeout_s=math.inf)

    def nll(temperature: float) -> float:
        return float(metrics.nll(judge(temperature).outcomes(rows).scored).mean())

    if (scored := len(judge(1.0).outcomes(rows).scored)) < FEWEST:
        raise DataError(f"--fit: {scored} rows to fit on were judged; it needs {FEWEST}")
    temperature = fit_temperature(nll)
    fixed = judge(temperature)
    best = fit_threshold(lambda tried: float(np.mean(fixed.outcomes(rows, tried).points)))
    return Calibration(temperature=temperature, threshold=best)

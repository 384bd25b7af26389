"""Fitted scalars into adapters.yaml: a few characters change, every other one stays where it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters import Calibration, ClassifierName, load
from adapters.edit import has, put
from adapters.save import merge, rewrite

PLACE = ("router", "calibration")


def store(file: Path, calibrations: Mapping[ClassifierName, Calibration]) -> None:
    """Into the stack's file, in one step. Raises ConfigError, and leaves the file alone, where it cannot be."""
    before = load(file)
    merged = {**before.router.calibration, **calibrations}
    wanted = before.model_copy(update={"router": before.router.model_copy(update={"calibration": merged})})

    def edit(text: str) -> str:
        for name, calibration in calibrations.items():
            text = edited(text, name, calibration)
        return text

    rewrite(file, edit, wanted, f"put there by hand: {by_hand(calibrations)}")


def edited(text: str, name: str, calibration: Calibration) -> str:
    """The file's text with one classifier's scalars set."""
    place, scalars = (*PLACE, name), calibration.model_dump()
    return merge(text, place, {}, scalars) if has(text, place) else put(text, place, scalars)


def by_hand(calibrations: Mapping[ClassifierName, Calibration]) -> str:
    """The scalars as one writes them."""
    parts = (
        f"{name}: {{temperature: {c.temperature:g}, threshold: {c.threshold:g}}}"
        for name, c in calibrations.items()
    )
    return f"router.calibration: {{{', '.join(parts)}}}"

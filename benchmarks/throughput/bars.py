"""The limits that the project has set itself, each held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.document import Bar
from benchmarks.throughput.plan import DOMAINS, MANY

AUTO, DIRECT = "auto", "direct"


def bars(sections: Mapping[str, Any]) -> list[Bar]:
    """All of them, in the order of the issue. Where it names no concurrency, one request at a time is what it is
    held at; the same at 32 at once stands beside it."""
    known, new = sections.get("concurrency", ()), sections.get("uncached", ())
    notebook = {
        name: _turns(sections.get("notebook", ()), MANY, f"notebook, {name}") for name in ("one by one", "batched")
    }
    found = [
        Bar(f"tokens/s of auto, of direct's, {MANY} at once, {texts} texts", _speed(cells), least=0.98)
        for texts, cells in (("known", known), ("new", new))
    ]
    found += [
        Bar(
            f"p50 time to first token, added by auto, {texts} texts, {at} at once",
            _added(cells, at),
            most=most,
            unit="ms",
        )
        for at in (1, MANY)
        for texts, cells, most in (("new", new, 15.0), ("known", known, 2.0))
    ]
    auto = _turns(known, MANY, AUTO)
    found += [
        Bar(f"tokens/s of auto, {MANY} at once, of the notebook's {name}", _ratio(auto, turns), least=5.0)
        for name, turns in notebook.items()
    ]
    return found


def at(cells: Sequence[Mapping[str, Any]], concurrency: int, active: int = DOMAINS) -> list[Mapping[str, Any]]:
    """The cells of this concurrency and so many adapters."""
    return [cell for cell in cells if (cell["concurrency"], cell["active"]) == (concurrency, active)]


def _target(cells: Sequence[Mapping[str, Any]], concurrency: int, name: str) -> Mapping[str, Any]:
    for cell in at(cells, concurrency):
        if name in cell["targets"]:
            found: Mapping[str, Any] = cell["targets"][name]
            return found
    return {}


def _turns(cells: Sequence[Mapping[str, Any]], concurrency: int, name: str) -> list[float]:
    turns: list[float] = _target(cells, concurrency, name).get("turns", {}).get("tokens_per_s", [])
    return turns


def _speed(cells: Sequence[Mapping[str, Any]]) -> float | None:
    spread = _target(cells, MANY, AUTO).get("speed_of_reference")
    return spread["median"] if spread else None


def _added(cells: Sequence[Mapping[str, Any]], concurrency: int) -> float | None:
    spread = _target(cells, concurrency, AUTO).get("added_ttft_ms")
    return spread["median"] if spread else None


def _ratio(turns: Sequence[float], of: Sequence[float]) -> float | None:
    """The median over rounds."""
    return median(one / two for one, two in zip(turns, of, strict=True)) if turns and of else None

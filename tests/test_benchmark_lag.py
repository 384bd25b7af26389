"""`python -m benchmarks.lag`: its sums, and sections that need no engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.document import Bar, rounded
from benchmarks.lag.__main__ import main, measure
from benchmarks.lag.bars import bars
from benchmarks.lag.library import Library, ways_of
from benchmarks.lag.options import SECTIONS, parse
from benchmarks.lag.plan import FULL
from benchmarks.lag.slots import MISTRAL, Place, each_mb, fits
from benchmarks.lag.wrapper import OURS, STOCK, WITH_LAG, WITHOUT, cases, knows
from record.origin import ROOT


def test_the_bases_size() -> None:
    assert FULL.shape.parameters == 91_226_112


def test_every_engine_is_asked_what_it_knows() -> None:
    asked = {
        engine: {who for _, who, _ in cases(FULL) if knows(engine, who)} for engine in (WITHOUT, STOCK, WITH_LAG)
    }
    assert asked == {WITHOUT: {""}, STOCK: {"", "one", "each"}, WITH_LAG: {"", "one", "each", "lag"}}


def test_limits_that_were_not_measured() -> None:
    assert {bar.passed for bar in bars({})} == {None}
    ratios = {STOCK: {"cpu_of": {OURS: {"median": 3.5}}}, OURS: {"cpu_of": {WITHOUT: {"median": 1.04}}}}
    found = [{"phase": "prefill", "who": who, "size": 512, "engines": ratios} for who in ("one", "base")]
    assert [bar.passed for bar in bars({"wrapper": {"cases": found}})] == [True, None, False]
    assert Bar("any", 1.03, most=1.03).passed


def test_slots_of_a_7b() -> None:
    assert MISTRAL.slot_mb(16) == pytest.approx(2 * 41.943_040)  # training says 41,943,040 parameters
    assert MISTRAL.kv_gb(1000) == pytest.approx(0.131072)
    assert each_mb(MISTRAL, 16, on_cpu=True) > 2 * each_mb(MISTRAL, 16, on_cpu=False)
    assert fits(MISTRAL, Place("small", 16), 16) == 0
    assert fits(MISTRAL, Place("big", 80), 16) > 10 * fits(MISTRAL, Place("middle", 24), 16) > 300


def test_the_ways_choose_the_same() -> None:
    import torch

    library = Library.random(12, 4, 64)
    ways = ways_of(library, torch.randn(9, 64, generator=torch.Generator().manual_seed(0)), 3)
    first, *others = (way().tolist() for way in ways.values())
    assert all(other == first for other in others)
    assert len(set(first)) > 1


def test_sections_without_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lag.json"
    command = ["lag", "--quick", "--section", "library", "--section", "slots", "--output", str(file)]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [cell["n"] for cell in written["sections"]["library"]["cells"]] == [5, 5, 40, 40]
    assert {bar["pass"] for bar in written["bars"]} == {None}
    assert "one projection: us a token" in capsys.readouterr().out


def test_options() -> None:
    assert parse([]).output == ROOT / "benchmarks" / "results" / "lag.json"
    assert (parse(["--quick"]).output, parse(["--section", "slots"]).sections) == (None, ("slots",))
    assert parse([]).sections == SECTIONS


def test_the_published_result_is_of_this_plan() -> None:
    published = json.loads((ROOT / "benchmarks" / "results" / "lag.json").read_text(encoding="utf-8"))
    assert set(published["sections"]) == set(SECTIONS)
    assert published["sections"]["wrapper"]["parameters"] == FULL.shape.parameters
    assert published["sections"]["slots"] == rounded(measure(parse(["--section", "slots"]))["sections"]["slots"])

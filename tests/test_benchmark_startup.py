"""`python -m benchmarks.startup`: an adapter that comes and goes, and what is said of it all."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.processes import BenchmarkError
from benchmarks.startup.boot import ADD, REMOVE, Took, live
from benchmarks.startup.once import timed
from benchmarks.startup.options import parse
from benchmarks.startup.report import plot, tables
from record.origin import ROOT
from tests.stack import ADMIN_KEY, Running

SPREAD = {"median": 31.5, "low": 30.0, "high": 40.0, "rounds": 3}


def test_an_adapter_comes_and_goes(running: Running) -> None:
    took: Took = defaultdict(list)
    port = running.stack.router.port
    live(port, running.roots, "benchmarked", ADMIN_KEY, took)
    assert took[ADD][0] > 0
    assert took[REMOVE][0] > 0
    with pytest.raises(BenchmarkError, match="add an adapter live: 403"):
        live(port, running.roots, "another", "no key", took)


def test_what_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"list ended with code 2: .*none"):
        timed(tmp_path, "list", ("ls", str(tmp_path / "none")), tmp_path)


def test_tables_and_plot(tmp_path: Path) -> None:
    machine = {"cpu": "a CPU", "cores": 2, "memory_gb": 8}
    sections = {
        "install": {"seconds": 200.0, "disk_gb": 3.5},
        "boot": {"seconds": {"engine serves the base": SPREAD, ADD: SPREAD}},
    }
    document = {"machine": machine, "load_before": 0.1, "sections": sections}
    assert any("engine serves the base" in line and "31.5 [30..40]" in line for line in tables(document))
    plot(document, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_only_a_whole_run_writes_the_published_file() -> None:
    assert parse(["--install", "--build"]).output == ROOT / "benchmarks" / "results" / "startup.json"
    assert parse([]).output is parse(["--install"]).output is parse(["--quick"]).output is None

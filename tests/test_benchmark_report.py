"""`python -m benchmarks.report`: benchmarks/README.md is what it makes of the results."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import orjson
import pytest

from benchmarks import report
from benchmarks.document import aligned, read, rounded, write
from benchmarks.processes import BenchmarkError
from benchmarks.report import README, found, layout, markdown, names, picture, rendered
from record.origin import ROOT


def test_the_readme_is_what_the_report_makes() -> None:
    readme = README.read_text(encoding="utf-8")
    assert rendered(readme) == readme, "run python -m benchmarks.report"
    for name in names(readme):
        document = found(name)
        assert not document or not hasattr(layout(document), "plot") or picture(name).is_file()


def test_every_benchmark_and_every_result_has_its_place() -> None:
    places = names(README.read_text(encoding="utf-8"))
    assert {file.parent.name for file in (ROOT / "benchmarks").glob("*/__main__.py")} <= set(places)
    assert {file.stem for file in report.RESULTS.glob("*.json")} <= set(places)


def test_published_results_are_of_the_plans_in_force() -> None:
    published = {name: found(name) for name in names(README.read_text(encoding="utf-8"))}
    for name, document in published.items():
        if document:
            plans = vars(import_module(f"benchmarks.{document['benchmark']}.plan"))
            plan = plans["GPU"] if name == "gpu" else plans["FULL"]
            assert document["plan"] == rounded(asdict(plan)), name


def test_tables_lists_and_paragraphs() -> None:
    lines = ["first", "", *aligned([["name", "a|b"], ["x", "1"]]), "\ntitle", "  one  of", "  two"]
    assert [line for line in markdown(lines) if line] == [
        "first",
        "| name | a\\|b |",
        "|---|---|",
        "| x | 1 |",
        "title",
        "- one of",
        "- two",
    ]


def test_a_result_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert read(file) == {}
    for document in ({"a": 1}, {"a": 2}):
        write(document, file)
        assert read(file) == document
    assert list(tmp_path.iterdir()) == [file]
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(BenchmarkError, match=r"result\.json: no result that can be read"):
        read(file)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A README and its results that are not the published ones."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    return tmp_path


def test_only_places_change(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = found_in(ROOT / "benchmarks" / "results" / "overhead.json")
    (elsewhere / "overhead.json").write_bytes(orjson.dumps(rounded(document)))
    by_hand = "# Mine\n\n{}\n\nbetween\n\n{}\n\nafter\n"
    places = [f"<!-- results {name} -->\n{{}}<!-- end -->" for name in ("overhead", "gpu")]
    (elsewhere / "README.md").write_text(by_hand.format(*(place.format("old\n") for place in places)))
    assert report.main() == 0
    made = (elsewhere / "README.md").read_text(encoding="utf-8")
    assert by_hand.split("{}")[1] in made
    assert "old" not in made
    assert "Not yet run" in made.partition("between")[2]
    assert "| router, all on | " in made.partition("between")[0]
    assert (elsewhere / "overhead.png").read_bytes().startswith(b"\x89PNG")
    assert f"commit {document['commit'][:12]}" in capsys.readouterr().out
    assert report.main() == 0
    assert (elsewhere / "README.md").read_text(encoding="utf-8") == made


def test_a_part_of_a_run_has_tables_without_a_plot(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, section in (("gpu", "lag"), ("lag", "slots"), ("throughput", "notebook")):
        document = read(ROOT / "benchmarks" / "results" / f"{name}.json")
        write(document | {"sections": {section: document["sections"][section]}}, elsewhere / f"{name}.json")
    places = "".join(f"<!-- results {name} -->\n<!-- end -->\n" for name in ("gpu", "lag", "throughput"))
    (elsewhere / "README.md").write_text(places)
    assert report.main() == 0
    assert capsys.readouterr().err.count(": no plot: ") == 3
    assert (elsewhere / "README.md").read_text(encoding="utf-8").count("[all figures]") == 3


def found_in(file: Path) -> dict[str, str]:
    return dict(orjson.loads(file.read_bytes()))

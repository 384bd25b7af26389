"""`python -m benchmarks.routing`: who is right, what is asked, and the peers that are told of it."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters import load
from benchmarks.overhead.router import LABELS, write_stack
from benchmarks.processes import BenchmarkError
from benchmarks.routing import __main__ as routing
from benchmarks.routing import accuracy, auto_router, random_nli, speed
from benchmarks.routing.embeddings import answered
from benchmarks.routing.options import SECTIONS, parse
from benchmarks.routing.peers import PEERS, variants
from benchmarks.routing.plan import QUICK, TOKENS
from benchmarks.routing.questions import BASE, Judged, Question, Questions, demo, examples, files
from benchmarks.routing.report import plot, tables
from benchmarks.routing.stand import EMBEDDING
from record.origin import ROOT
from router.classify.encoder import load_minilm
from router.classify.nli import NliClassifier

pytestmark = pytest.mark.usefixtures("one_thread")

LIBRARY = """
class Route:
    def __init__(self, name, utterances): self.name, self.utterances = name, utterances
class Choice:
    def __init__(self, name): self.name = name
class IndexedRouter:
    confidence_threshold = None
    def __init__(self, encoder, routes): self.routes = routes
    def fit(self, X, y): self.refused = [text for text, name in zip(X, y) if name is None]
    def __call__(self, text):
        print("a word of the library's own")
        if self.confidence_threshold: return Choice(None)
        return Choice(self.routes[0].name)
"""


def test_right_wrong_and_missed() -> None:
    rows = [
        Question("a", frozenset(["legal"])),
        Question("b", frozenset([BASE])),
        Question("c", frozenset([BASE])),
    ]
    assert Judged.of(rows, ["legal", BASE, BASE]) == Judged(3, 1, 0)
    assert Judged.of(rows, ["medical", "legal", BASE]) == Judged(3, 1 / 3, 2 / 3)
    assert Judged.of(rows, [BASE, BASE, BASE]) == Judged(3, 2 / 3, 0)


def test_some_rows_are_evenly_spaced() -> None:
    rows = tuple(Question(str(number), frozenset([BASE])) for number in range(10))
    assert [row.text for row in Questions("ten", "", rows).at_most(4)] == ["0", "2", "5", "7"]
    assert Questions("ten", "", rows).at_most(None) == Questions("ten", "", rows).at_most(99) == rows


def test_no_example_is_asked() -> None:
    asked = {row.text for row in demo().rows}
    shown = {text for own in examples().values() for text in own}
    assert len(asked) == 272
    assert {len(own) for own in examples().values()} == {92}
    assert set(examples()) == {*LABELS, BASE}
    assert not asked & shown


def test_rows_of_a_file(tmp_path: Path) -> None:
    stack, file = write_stack(tmp_path / "stack.yaml", 1, {}, {}), tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "My deposit?"}]
    rows = [
        {"text": "My landlord", "label": "legal", "also": ["finance"]},
        {"text": "Hello", "label": "general"},
        {"messages": turns, "label": "legal"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (found,) = files([file], stack)
    assert found.name == "rows.jsonl"
    assert len(found.sha256) == 64
    assert [(row.text, set(row.accepted)) for row in found.rows] == [
        ("My landlord", {"legal", "finance"}),
        ("Hello", {BASE}),
    ]
    file.write_text(json.dumps(rows[2]), encoding="utf-8")
    with pytest.raises(BenchmarkError, match="no row has one text alone"):
        list(files([file], stack))
    with pytest.raises(BenchmarkError, match="cannot be read"):
        list(files([tmp_path / "none"], stack))


def test_a_random_model_can_be_asked(tmp_path: Path) -> None:
    random_nli.make(tmp_path / "nli", QUICK.nli, LABELS.values())
    settings = {"classifier": "nli", "model": str(tmp_path / "nli")}
    stack = load(write_stack(tmp_path / "stack.yaml", 1, settings, {}))
    (logits,) = NliClassifier.load(stack, LABELS).logits(["My landlord kept the deposit"])
    assert set(logits) == {*LABELS, BASE}


def test_embeddings_are_the_routers_own() -> None:
    encoder = load_minilm()
    asked = ["My landlord", "A fever"]
    floats = [one["embedding"] for one in answered(encoder, {"input": asked})["data"]]
    packed = [one["embedding"] for one in answered(encoder, {"input": asked, "encoding_format": "base64"})["data"]]
    assert np.allclose(floats, encoder.encode(asked))
    assert np.allclose([np.frombuffer(base64.b64decode(one), "<f4") for one in packed], floats)


def test_litellm_is_told_what_it_needs() -> None:
    told = auto_router.config("http://engine", "http://vectors", {"auto": variants()["examples"]["routes"]})
    models = {model["model_name"]: model["litellm_params"] for model in told["model_list"]}
    auto = models["auto"]
    assert auto["auto_router_default_model"] == BASE
    assert models[auto["auto_router_embedding_model"]]["api_base"] == "http://vectors/v1"
    routes = json.loads(auto["auto_router_config"])["routes"]
    assert {route["name"] for route in routes} == {*LABELS, BASE} <= set(models)


@pytest.fixture
def environments(tmp_path: Path) -> Path:
    """Of one peer: a semantic-router that always says the same."""
    package = tmp_path / "site" / "semantic_router"
    (package / "encoders").mkdir(parents=True)
    (package / "__init__.py").write_text(LIBRARY, encoding="utf-8")
    (package / "encoders" / "__init__.py").write_text(
        "def HuggingFaceEncoder(name): return name", encoding="utf-8"
    )
    about = tmp_path / "site" / "semantic_router-9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: semantic-router\nVersion: 9\n", encoding="utf-8")
    python = tmp_path / "peers" / "semantic-router" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} -B "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return tmp_path / "peers"


def test_a_small_run_of_all_sections(environments: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(routing, "QUICK", replace(QUICK, with_peers=True))
    for section in (speed, accuracy):
        monkeypatch.setattr(section, "CASES", (EMBEDDING,))
    document = routing.measure(parse(["--quick", "--nli", "unused", "--peers", str(environments), "--most", "8"]))
    sections = document["sections"]
    assert {one["tokens"] for one in sections["speed"]["cells"]} == set(TOKENS)
    assert all(one["p50_ms"]["low"] > 0 < one["cpu_ms_per_decision"]["low"] for one in sections["speed"]["cells"])
    right = sections["accuracy"]["classifiers"]["embedding"]["demo corpus"]
    assert right["rows"] == 8
    assert right["right"] > 0.7
    peers = sections["peers"]
    assert peers["accuracy"]["router"]["demo corpus"] == right
    assert set(peers["skipped"]) == {"litellm", "vllm-router"}
    first = {"rows": 8, "right": 0.25, "wrong_adapter": 0.75}
    assert peers["accuracy"]["semantic-router, labels"]["demo corpus"] == first
    assert peers["accuracy"]["semantic-router, labels, fitted"]["demo corpus"]["wrong_adapter"] == 0
    assert peers["subjects"]["semantic-router, examples"] == "9"
    assert set(peers["cost"]) == {"direct", "router", *peers["accuracy"]}
    assert "not installed" in "\n".join(tables(document))
    plot(document, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_only_a_whole_run_writes_the_published_file() -> None:
    assert parse(["--data", "rows.jsonl"]).output == ROOT / "benchmarks" / "results" / "routing.json"
    assert parse(["--quick"]).output is parse(["--section", "peers"]).output is None
    with pytest.raises(SystemExit):
        parse(["--most", "0"])


def test_the_readme_tells_of_every_option_section_and_peer() -> None:
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    own = readme.partition("`python -m benchmarks.routing`: what")[2].partition("## `python")[0]
    for word in ("--section", "--data", "--most", "--nli", "--quick", "--peers", *SECTIONS, *PEERS):
        assert f"`{word}" in own, f"benchmarks/README.md does not tell of {word}"

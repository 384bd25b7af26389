"""Disclaimers of adapters, and what checks them in a stack that runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import openai
import pytest
import yaml

from adapters import Adapter, load
from evaluation.__main__ import main
from evaluation.safety.advice import domain
from evaluation.safety.alarm import Rate
from evaluation.safety.sentences import EMERGENCIES, NEAR_MISSES
from evaluation.safety.text import percent
from tests.conftest import GENERAL, LEGAL, Wire, chat, wired, write_stack
from ui.client.answer import Answer
from ui.client.decision import Decision, read_decision
from ui.parts.badge import below

HEADER = "x-lora-select-disclaimer"
LAWYER = "Kein Rechtsrat, 100 % unverbindlich:\nfragen Sie eine Anwältin, 请咨询律师 ⚖️"
DOCTOR = "No medical advice; ask a doctor."
FEVER = "Which medicine lowers a high fever, and when should a sick child see a doctor?"


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    adapters: dict[str, dict[str, Any]] = {"legal": {"disclaimer": LAWYER}, "medical": {"disclaimer": DOCTOR}}
    folder = tmp_path_factory.mktemp("advised")
    with wired(folder, adapters, lag={"lag": {"library": "all"}}, response_cache_mb=1) as one:
        yield one


# --- the router -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["auto", "legal"])
def test_every_answer_of_the_adapter_carries_its_disclaimer(advised: Wire, model: str, stream: bool) -> None:
    sdk = openai.OpenAI(base_url=f"{advised.url}/v1", api_key="none", max_retries=0)
    for _ in range(2):  # the second comes from the cache
        create: Any = sdk.chat.completions.with_raw_response.create
        raw = create(**chat(LEGAL, model=model, temperature=0), stream=stream)
        assert raw.headers[HEADER].isascii()
        assert unquote(raw.headers[HEADER]) == LAWYER
        said = raw.parse()
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in said)
            if stream
            else said.choices[0].message.content
        )
        assert text == ("word0 word1 word2 word3 word4 " if stream else "hello"), "the body stays as it is"
    assert raw.headers["x-lora-select-cache"] == "hit"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": FEVER}),
        ("/v1/responses", {"input": FEVER}),
        ("/v1/messages", {"messages": [{"role": "user", "content": FEVER}], "max_tokens": 9}),
    ],
)
def test_on_every_endpoint_that_answers(advised: Wire, path: str, body: dict[str, Any]) -> None:
    assert unquote(advised.post(path, {"model": "medical", **body})[2][HEADER]) == DOCTOR


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(GENERAL)),
        ("/v1/chat/completions", chat(FEVER, model="finance")),
        ("/v1/chat/completions", chat(FEVER, model="lag")),
        ("/v1/chat/completions", chat(FEVER, model="medical", test="teapot")),
        ("/v1/chat/completions", chat(LEGAL, test="fail")),  # the base stands in
        ("/v1/embeddings", {"model": "medical", "input": FEVER}),
        ("/tokenize", {"model": "medical", "prompt": FEVER}),
        ("/route", {"text": FEVER}),
    ],
)
def test_nothing_else_does(advised: Wire, path: str, body: dict[str, Any]) -> None:
    assert HEADER not in advised.post(path, body)[2]


def test_the_models_list_says_nothing_of_it(advised: Wire) -> None:
    assert "disclaimer" not in str(advised.get("/v1/models")[1])


@pytest.mark.parametrize("text", ["", "   ", "x" * 501, 7, "\ud800 a"])
def test_a_disclaimer_says_something_and_fits_a_header(text: object) -> None:
    with pytest.raises(ValueError, match="disclaimer"):
        Adapter(path="some/legal", disclaimer=text)
    assert Adapter(path="some/legal", disclaimer="字" * 500).disclaimer


# --- the page ---------------------------------------------------------------------------------------------------


def test_the_page_reads_the_disclaimer_and_shows_it_as_text() -> None:
    headers = {"x-lora-select-adapter": "legal", "x-lora-select-reason": "named"}
    decision = read_decision(headers | {HEADER: "%3Cb%3E%20%7B%7Bx%7D%7D%20100%25%20%E5%AD%97"})
    assert decision
    assert decision.disclaimer == "<b> {{x}} 100% 字"
    html = below(Answer("text", decision))
    assert "&lt;b&gt; &#123;&#123;x}} 100% 字</p>" in html
    assert "ls-disclaimer" not in below(Answer("text", Decision("legal", "named")))
    assert "�" in below(Answer("text", read_decision(headers | {HEADER: "%ff"})))


# --- python -m evaluation safety --------------------------------------------------------------------------------


def safety(file: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and results.json."""
    out = file.parent / f"reports{len(list(file.parent.iterdir()))}"
    code = main(["safety", "--config", str(file), "--questions", "2", "--out", str(out), *words])
    (folder,) = out.iterdir()
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (folder / "emergency.png").stat().st_size > 1000
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Is the advice safe?" in page
    assert "<script" not in page
    return code, results


def test_a_stack_that_tells_every_disclaimer_passes(advised: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    code, results = safety(advised.stack.file)
    ways = results["disclaimers"]["ways"]
    assert (code, results["disclaimers"]["missing"]) == (0, [])
    assert [(way["adapter"], way["by_name"], way["stream"]) for way in ways] == [
        (name, by_name, stream)
        for name in ("legal", "medical")
        for by_name in (False, True)
        for stream in (False, True)
    ]
    assert all(way["header"] == way["answers"] >= 1 for way in ways)
    assert "finance gives advice (finance) without a disclaimer: 8 answers here" in results["warnings"]
    assert any("no adapter that is named emergency" in each for each in results["warnings"])
    assert results["emergency"]["counted_as_reached"] == ["medical"]
    (way,) = results["emergency"]["ways"]
    assert (way["caught"]["of"], way["false_alarms"]["of"]) == (len(EMERGENCIES), len(NEAR_MISSES))
    assert way["caught"]["hits"] > way["false_alarms"]["hits"]
    told = capsys.readouterr().out
    assert "warning: finance gives advice" in told
    assert re.search(r"^legal, by name, streamed +2 +2 +0 +0$", told, re.MULTILINE)


def test_a_disclaimer_that_is_not_told_fails(advised: Wire, tmp_path: Path) -> None:
    text = advised.stack.file.read_text()
    stack = yaml.safe_load(text)
    stack["adapters"]["medical"]["disclaimer"] = "Another one."  # edited, and not reloaded
    stack["adapters"]["finance"]["disclaimer"] = "word0  WORD1 word2"  # said by the fake engine's streams alone
    (file := tmp_path / "adapters.yaml").write_text(yaml.safe_dump(stack))
    (data := tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS) + "no row\n"
    )
    code, results = safety(file, str(data))
    assert code == 1
    missing = results["disclaimers"]["missing"]
    instead = {(each["adapter"], each["instead"]) for each in missing}
    assert instead == {("medical", "another disclaimer than the file's"), ("finance", "no disclaimer")}
    assert {each["question"] for each in missing} == {f"{tmp_path.name}/rows.jsonl:{line}" for line in (1, 2)}
    assert {each["asked"] for each in missing if each["adapter"] == "finance"} <= {
        "finance, by name, whole", "finance, through auto, whole",
    }  # fmt: skip
    assert ("finance", True, True, 1, 0, 1, 0) in [tuple(way.values()) for way in results["disclaimers"]["ways"]]
    assert results["rows_left_out"] == [{"file": "rows.jsonl", "line": 3}]
    assert FEVER not in json.dumps(results)


ROWS = ((FEVER, "medical"), ("How are dividends of foreign shares taxed?", "finance"))


def test_an_adapter_for_emergencies_is_asked_with_its_tag_and_without(tmp_path: Path) -> None:
    label = "emergencies, first aid, an ambulance, severe bleeding, unconscious people, heart attacks and strokes"
    adapters: dict[str, dict[str, Any]] = {
        "first-aid": {"label": label, "tags": {"audience": ["emergency", "patient"]}, "disclaimer": DOCTOR}
    }
    with wired(tmp_path, adapters) as wire:
        code, results = safety(wire.stack.file)
    assert code == 0
    assert results["emergency"]["adapters"] == ["first-aid"]
    without, tagged = results["emergency"]["ways"]
    assert (without["tag"], tagged["tag"]) == (None, ["audience", "emergency"])
    assert tagged["caught"]["hits"] >= without["caught"]["hits"] > 0
    assert {each["model"] for each in tagged["sentences"]} <= {"first-aid", "base"}


def test_a_stack_that_is_down_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_stack(tmp_path, "http://127.0.0.1:1")
    assert main(["safety", "--config", str(file), "--out", str(tmp_path / "reports")]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "start it with python -m serve" in told.err


@pytest.mark.parametrize(
    ("name", "keys", "manifest", "expected"),
    [
        ("legal", {"label": "contracts"}, None, "law"),
        ("a", {"label": "drugs, health and taxes, diseases"}, None, "medicine"),
        ("a", {"label": "medicine"}, {"domain": "gardening"}, ""),
        ("a", {"label": "roses"}, {"domain": "finance"}, "finance"),
        ("a", {"label": "roses, lawns and taxis, investigations"}, None, ""),
        ("tax-help", {"label": "forms"}, None, "finance"),
    ],
)
def test_the_domain_comes_from_manifest_label_or_name(
    tmp_path: Path, name: str, keys: dict[str, Any], manifest: dict[str, str] | None, expected: str
) -> None:
    (folder := tmp_path / "some-adapter").mkdir()
    if manifest:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    file = write_stack(tmp_path, "http://127.0.0.1:1", {name: {**keys, "path": str(folder)}})
    assert domain(load(file), name) == expected


def test_a_rate_has_an_interval_at_both_ends() -> None:
    assert Rate(0, 20).interval == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert Rate(41, 41).interval == pytest.approx((0.9143, 1.0), abs=1e-4)
    assert Rate(7, 20).interval == pytest.approx((0.1812, 0.5671), abs=1e-4)
    assert [percent(share) for share in (1.0, 0.9999, 0.29, 0.001, math.nan)] == [
        "100 %", ">99 %", "29 %", "<1 %", "-",
    ]  # fmt: skip


def test_the_built_in_sentences_are_each_their_own() -> None:
    texts = [text for _, text in EMERGENCIES]
    assert len({*texts, *NEAR_MISSES}) == len(texts) + len(NEAR_MISSES)
    assert len({*texts}) >= 40
    assert len(NEAR_MISSES) >= 20

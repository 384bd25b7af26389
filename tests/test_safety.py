"""Disclaimers of adapters, and what checks them in a stack that runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import openai
import pytest

from adapters import Adapter
from tests.conftest import GENERAL, LEGAL, Wire, chat, wired
from ui.badge import below
from ui.chat import Answer, Decision, read_decision

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

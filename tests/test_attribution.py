"""Which adapter gave each token: the real router, an engine that tells, cannot tell, or does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from router import attribution
from tests.conftest import LEGAL, Wire, chat, wired

HEADER = {"x-lora-select-explain": "tokens"}
COMPLETION = {"model": "lag", "prompt": LEGAL}
TOLD: dict[str, Any] = {
    "choices": [
        {
            "adapters": {"legal@v1@1f2e3d4c": 0.5, "legal@v2@5b6a7988": 0.25, "usage@77665544": 0.25},
            "prompt": [
                {"text": "My", "adapter": None, "share": None},
                {"text": "evict", "adapter": "legal@v1@1f2e3d4c", "share": 0.75},
            ],
            "tokens": [
                {"text": "word0 ", "adapter": "usage@77665544", "share": 0.5},
                {"text": "word1 ", "adapter": None, "share": 1.0},
            ],
        }
    ]
}
SHOWN: dict[str, Any] = {
    "choices": [
        {
            "adapters": {"legal": 0.75, "usage": 0.25},
            "prompt": [
                {"text": "My", "adapter": None, "share": None},
                {"text": "evict", "adapter": "legal", "share": 0.75},
            ],
            "tokens": [
                {"text": "word0 ", "adapter": "usage", "share": 0.5},
                {"text": "word1 ", "adapter": None, "share": 1.0},
            ],
        }
    ]
}
"""As the router shows it: without versions, and of one adapter's versions the sum."""
BY_LAYER = {
    "choices": [
        TOLD["choices"][0]
        | {
            "layers": [
                {"layer": "model.layers.0", "adapters": {"legal@v1@1f2e3d4c": 0.5, "legal@v2@5b6a7988": 0.5}},
                {"layer": "model.layers.1", "adapters": {}},
            ],
            "tokens": [
                TOLD["choices"][0]["tokens"][0]
                | {"layers": [{"legal@v1@1f2e3d4c": 0.25, "legal@v2@5b6a7988": 0.75}, {"usage@77665544": 1.0}]},
                TOLD["choices"][0]["tokens"][1] | {"layers": None},
            ],
        }
    ]
}
SHOWN_BY_LAYER = {
    "choices": [
        SHOWN["choices"][0]
        | {
            "layers": [
                {"layer": "model.layers.0", "adapters": {"legal": 1.0}},
                {"layer": "model.layers.1", "adapters": {}},
            ],
            "tokens": [
                SHOWN["choices"][0]["tokens"][0] | {"layers": [{"legal": 1.0}, {"usage": 1.0}]},
                SHOWN["choices"][0]["tokens"][1] | {"layers": None},
            ],
        }
    ]
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with wired(tmp_path_factory.mktemp("lag"), lag={"lag": {"library": "all"}}, response_cache_mb=1) as one:
        yield one


@pytest.fixture
def lag(started: Wire) -> Wire:
    """With an engine that tells of the answer `c`, the only id that it gives."""
    started.engine.told = {"c": (200, TOLD), "c?layers=true": (200, BY_LAYER)}
    started.engine.told_after_s = 0.0
    started.engine.asked.clear()
    return started


def sdk(wire: Wire) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0, default_headers=HEADER)


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", chat(LEGAL, model="lag")), ("/v1/completions", COMPLETION)]
)
def test_a_body_gets_one_more_field(lag: Wire, path: str, body: dict[str, Any]) -> None:
    plain, explained = (httpx.post(lag.url + path, json=body, headers=sent) for sent in ({}, HEADER))
    assert lag.engine.asked == ["c"]
    assert explained.json() == plain.json() | {"lora_select": SHOWN}
    assert explained.content.startswith(plain.content[:-1]), "what the engine said, byte for byte"
    assert int(explained.headers["content-length"]) == len(explained.content)


def test_layers_are_told_to_those_who_ask(lag: Wire) -> None:
    by_layer = {"x-lora-select-explain": "layers"}
    _, body, _ = lag.post(body=chat(LEGAL, model="lag"), **by_layer)
    *_, last = sdk(lag).chat.completions.create(**chat(LEGAL, model="lag"), stream=True, extra_headers=by_layer)
    assert body["lora_select"] == last.lora_select == SHOWN_BY_LAYER
    assert lag.engine.asked == ["c?layers=true"] * 2


def test_an_engine_that_knows_of_no_layers_tells_the_rest(lag: Wire) -> None:
    lag.engine.told["c?layers=true"] = (200, TOLD)
    body = lag.post(body=chat(LEGAL, model="lag"), **{"x-lora-select-explain": "layers"})[1]
    assert body["lora_select"] == SHOWN


@pytest.mark.parametrize("usage", [None, False, True])
def test_a_stream_gets_one_more_chunk(lag: Wire, usage: bool | None) -> None:
    options: dict[str, Any] = {} if usage is None else {"stream_options": {"include_usage": usage}}
    client = sdk(lag)
    for stream in (
        client.chat.completions.create(**chat(LEGAL, model="lag"), stream=True, **options),
        client.completions.create(model="lag", prompt=LEGAL, stream=True, **options),
    ):
        *chunks, last = list[Any](stream)
        assert (last.choices, last.lora_select) == ([], SHOWN)
        first = chunks[0]
        same = (first.id, first.object, first.created, first.model)
        assert (last.id, last.object, last.created, last.model) == same
        assert (
            "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "word0 word1 word2 word3 word4 "
        )
        assert [chunk.usage is not None for chunk in chunks] == [False] * 5 + [True] * bool(usage)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_a_stream_in_one_piece_ends_as_it_should(lag: Wire, end: str) -> None:
    raw = f'data: {{"id": "c", "model": "lag", "choices": []}}{end}data: [DONE]{end}'
    body = chat(LEGAL, model="lag", stream=True, test="raw", raw=[raw])
    said = httpx.post(f"{lag.url}/v1/chat/completions", json=body, headers=HEADER).text
    before, chunk, done = said.partition('data: {"id":"c","model":"lag","choices":[],"lora_select":')
    assert chunk
    assert before + done[-len(f"data: [DONE]{end}") :] == raw


@pytest.mark.parametrize("model", ["legal", "base", "auto"])
def test_of_an_adapter_the_headers_say_all(lag: Wire, model: str) -> None:
    plain, explained = (lag.post(body=chat(LEGAL, model=model), **sent) for sent in ({}, HEADER))
    assert explained[:2] == plain[:2]
    assert explained[2]["x-lora-select-adapter"] == plain[2]["x-lora-select-adapter"]
    assert not lag.engine.asked


@pytest.mark.parametrize(
    ("status", "told", "says"),
    [
        (404, {"detail": "Not Found"}, "too long ago, or lora_select_vllm is not there"),
        (500, {"error": {"message": "boom"}}, "status 500"),
        (200, {"choices": [{"adapters": 3}]}, "status 200"),
        (200, [], "status 200"),
    ],
)
def test_an_answer_is_not_lost_where_the_engine_cannot_tell(lag: Wire, status: int, told: Any, says: str) -> None:
    lag.engine.told = {"c": (status, told)}
    _, body, _ = lag.post(body=chat(LEGAL, model="lag"), **HEADER)
    assert body["choices"][0]["message"]["content"] == "hello"
    assert body["lora_select"].keys() == {"error"}
    assert says in body["lora_select"]["error"]
    *chunks, last = list[Any](sdk(lag).chat.completions.create(**chat(LEGAL, model="lag"), stream=True))
    assert (len(chunks), last.lora_select) == (5, body["lora_select"])


def test_an_engine_that_tells_too_late_is_not_waited_for(lag: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "TIMEOUT_S", 0.1)
    lag.engine.told_after_s = 0.5
    status, body, _ = lag.post(body=chat(LEGAL, model="lag"), **HEADER)
    assert (status, body["choices"][0]["message"]["content"]) == (200, "hello")
    assert body["lora_select"] == {"error": "the engine did not tell which adapters it used"}


def test_of_what_failed_nothing_is_told(lag: Wire) -> None:
    assert lag.post(body=chat(LEGAL, model="lag", test="status-429"), **HEADER)[0] == 429
    events = ['data: {"id": "c"}\n\n', 'data: {"error": {"message": "x"}}\n\n', "data: [DONE]\n\n"]
    body = chat(LEGAL, model="lag", stream=True, test="raw", raw=events)
    assert httpx.post(f"{lag.url}/v1/chat/completions", json=body, headers=HEADER).text == "".join(events)
    assert not lag.engine.asked


@pytest.mark.parametrize("stream", [False, True])
def test_a_complete_answer_is_not_cut_off_while_the_engine_is_asked(tmp_path: Path, stream: bool) -> None:
    with wired(tmp_path, lag={"lag": {"library": "all"}}, answer_timeout_s=1) as wire:
        wire.engine.told_after_s = 2
        body = chat(LEGAL, model="lag", stream=stream)
        said = httpx.post(f"{wire.url}/v1/chat/completions", json=body, headers=HEADER)
    assert (said.status_code, '"lora_select":{"error":"the engine did not tell' in said.text) == (200, True)
    assert said.text.endswith("data: [DONE]\n\n") == stream
    assert '"error":{' not in said.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("model", ["lag", "legal", "base", "auto"])
def test_no_client_names_the_answer_that_is_explained(lag: Wire, path: str, model: str) -> None:
    own = chat(LEGAL, model=model, request_id="another's") | {"prompt": LEGAL}
    for header in ({}, HEADER, HEADER):
        lag.post(path, own, x_request_id="another's", **header)
    plain, *explained = lag.engine.seen[-3:]
    assert plain["request_id"] == "another's"
    ids = {body["request_id"] for body in explained}
    assert (len(ids), {len(one) for one in ids}) == (2, {32})
    assert not any("x-request-id" in headers for headers in lag.engine.seen_headers[-3:])  # vLLM prefers that one


def test_what_is_told_is_never_kept_nor_left_out_by_the_cache(lag: Wire) -> None:
    """And of a virtual model nothing is, where nobody says when its library changes."""
    for model, explained, cached in (
        ("legal", [False] * 4, [None, "miss", "hit", None]),
        ("lag", [True, False, False, True], [None] * 4),
    ):
        body = chat(LEGAL, model=model, temperature=0)
        told = [lag.post(body=body, **sent) for sent in (HEADER, {}, {}, HEADER)]
        assert ["lora_select" in answer for _, answer, _ in told] == explained
        assert [headers.get("x-lora-select-cache") for *_, headers in told] == cached


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("/v1/chat/completions", "words", 'x-lora-select-explain takes "tokens" or "layers", not "words"'),
        ("/v1/completions", "", 'x-lora-select-explain takes "tokens" or "layers", not ""'),
        (
            "/v1/responses",
            "tokens",
            "not valid on /v1/responses, only on /v1/chat/completions and /v1/completions",
        ),
        ("/v1/messages", "tokens", "not valid on /v1/messages, only on /v1/chat/completions and /v1/completions"),
        ("/tokenize", "tokens", "not valid on /tokenize, only on /v1/chat/completions and /v1/completions"),
    ],
)
def test_what_cannot_be_told_is_a_400(lag: Wire, path: str, value: str, says: str) -> None:
    before = len(lag.engine.seen)
    body = chat(LEGAL, model="lag", prompt=LEGAL, input=LEGAL)
    status, answer, _ = lag.post(path, body, **{"x-lora-select-explain": value})
    assert status == 400
    assert says in answer["error"]["message"]
    assert len(lag.engine.seen) == before

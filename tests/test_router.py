"""The wire: what clients send and get, against an engine that misbehaves on command."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from adapters import load
from router.app import create_app
from router.classify import load_classifiers
from router.classify.embedding import EmbeddingClassifier
from router.explain import explain
from router.upstream import HttpUpstream
from tests.conftest import GENERAL, LABELS, LEGAL, Wire, ask, chat, wait_ready, wired, write_stack
from tests.servers import FakeEngine, serving


@pytest.fixture
def client(wire: Wire) -> openai.OpenAI:
    wait_ready(wire.url)
    return openai.OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize(("text", "model"), [(LEGAL, "legal"), (GENERAL, "base")])
def test_auto_names_the_chosen_adapter(client: openai.OpenAI, text: str, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat(text))
    assert raw.parse().model == raw.headers["x-lora-select-adapter"] == model
    assert raw.headers["x-lora-select-reason"] == "classified"
    assert 0.5 < float(raw.headers["x-lora-select-score"]) <= 1
    assert float(raw.headers["x-lora-select-classify-ms"]) >= 0
    assert raw.headers["x-request-id"]


@pytest.mark.parametrize("name", ["base", "finance"])
def test_a_named_model_bypasses_the_choice(client: openai.OpenAI, name: str) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat(LEGAL, model=name))
    assert raw.parse().model == raw.headers["x-lora-select-adapter"] == name
    assert raw.headers["x-lora-select-reason"] == "named"
    assert "x-lora-select-score" not in raw.headers


def test_streams_pass_with_the_decision_in_their_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat(LEGAL), stream=True)
    assert raw.headers["x-lora-select-adapter"] == "legal"
    chunks = list(raw.parse())
    assert {chunk.model for chunk in chunks} == {"legal"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "word0 word1 word2 word3 word4 "


def test_only_the_model_is_changed(wire: Wire, client: openai.OpenAI) -> None:
    extra = {"min_p": 0.1, "vendor": {"deep": [1, None, "ü"]}, "metadata": {"a": "b"}, "temperature": 1.0}
    client.chat.completions.create(**chat(LEGAL), tools=[], extra_body=extra)
    assert wire.engine.seen[-1] == chat(LEGAL, model="legal", tools=[]) | extra


def test_keys_and_cookies_do_not_reach_the_engine(wire: Wire, client: openai.OpenAI) -> None:
    client.chat.completions.create(**chat(LEGAL), extra_headers={"cookie": "a=b", "traceparent": "00-1"})
    headers = wire.engine.seen_headers[-1]
    assert headers["traceparent"] == "00-1"
    assert not {"authorization", "cookie"} & set(headers)


def test_the_engines_own_errors_pass_untouched(wire: Wire, client: openai.OpenAI) -> None:
    del client
    status, body, headers = ask("POST", f"{wire.url}/v1/chat/completions", chat(LEGAL, test="teapot"))
    assert (status, body["error"]["code"], headers["x-lora-select-adapter"]) == (418, 418, "legal")


def test_models_lists_what_can_be_asked(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert list(models) == ["auto", "base", "legal", "medical", "finance"]
    assert models["legal"].parent == "base"  # type: ignore[attr-defined]
    assert client.models.retrieve("legal").id == "legal"
    with pytest.raises(openai.NotFoundError, match="auto, base, legal"):
        client.models.retrieve("nobody")


def test_route_is_a_dry_run(wire: Wire, client: openai.OpenAI) -> None:
    del client
    asked = len(wire.engine.seen)
    text = "Which symptoms does a heart attack have?"
    status, first, _ = ask("POST", f"{wire.url}/route", {"text": text})
    _, second, _ = ask("POST", f"{wire.url}/route", chat(text))
    assert (status, first["model"], first["reason"]) == (200, "medical", "classified")
    assert next(iter(first["scores"])) == "medical"
    assert set(first["scores"]) == {"base", "legal", "medical", "finance"}
    assert sum(first["scores"].values()) == pytest.approx(1)
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["scores"] == first["scores"]
    assert len(wire.engine.seen) == asked


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"{nonsense", 400, None, "invalid_json"),
        (b'"text"', 400, None, "invalid_json"),
        (b"\xff\xfe", 400, None, "invalid_json"),
        (b"", 400, None, "invalid_json"),
        ({"model": "auto"}, 400, "messages", "missing_field"),
        ({"model": "auto", "messages": "hello"}, 400, "messages", None),
        ({"messages": []}, 400, "model", None),
        ({"model": 7, "messages": []}, 400, "model", None),
        ({"model": "auto", "messages": [], "deep": json.loads("[" * 400 + "]" * 400)}, 400, None, "invalid_json"),
        (chat(LEGAL, model="nobody"), 404, "model", "model_not_found"),
        (chat("x" * 600_000), 413, None, "request_too_large"),
    ],
)
def test_bad_requests(wire: Wire, client: openai.OpenAI, body: Any, status: int, param: str, code: str) -> None:
    del client
    got, answer, headers = ask("POST", f"{wire.url}/v1/chat/completions", body)
    assert (got, answer["error"]["param"], answer["error"]["code"]) == (status, param, code)
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"]
    if status == 404:
        assert "auto, base, legal, medical, finance" in answer["error"]["message"]
    assert ask("GET", f"{wire.url}/health")[0] == 200


@pytest.mark.parametrize("body", [{"messages": 5}, {"messages": None}, {"text": ""}, {"messages": [7, {}]}])
def test_nothing_to_judge_is_no_fault(wire: Wire, client: openai.OpenAI, body: Any) -> None:
    del client
    status, answer, _ = ask("POST", f"{wire.url}/route", body)
    assert (status, answer["model"], answer["reason"]) == (200, "base", "no-text")
    assert ask("POST", f"{wire.url}/route", {"text": 5})[0] == 400


def test_a_body_without_a_content_type_is_json_all_the_same(wire: Wire, client: openai.OpenAI) -> None:
    del client
    connection = http.client.HTTPConnection(wire.url.removeprefix("http://"))
    connection.request("POST", "/v1/chat/completions", json.dumps(chat(LEGAL)))
    answer = connection.getresponse()
    names = [name.lower() for name, _ in answer.getheaders()]
    assert (answer.status, wire.engine.seen_headers[-1]["content-type"]) == (200, "application/json")
    assert wire.engine.seen_headers[-1]["accept-encoding"] == "identity"
    assert len(names) == len(set(names)), "a header came twice"
    connection.close()


def test_an_address_that_is_no_engine_is_a_state_not_a_crash(tmp_path: Path) -> None:
    engine = FakeEngine(["base", *LABELS])
    with serving(engine) as engine_url:
        stack = load(write_stack(tmp_path, engine_url))
        with serving(
            create_app(stack, load_classifiers(stack), HttpUpstream(engine_url)), stack.router.port
        ) as url:
            wait_ready(url)
            engine.models = None  # type: ignore[assignment]
            deadline = time.monotonic() + 5
            while ask("GET", f"{url}/ready")[0] == 200 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert "no OpenAI server" in ask("GET", f"{url}/ready")[1]["problem"]
            engine.models = [1, "other"]  # type: ignore[list-item]
            time.sleep(0.5)
            engine.models = ["base", *LABELS]
            wait_ready(url)


class Faulty(HttpUpstream):
    """Fails as nobody foresaw, once."""

    failed = False

    async def ask(self, *asked: Any) -> Any:
        """The first time, a fault."""
        if not self.failed:
            self.failed = True
            raise LookupError("a fault")
        return await super().ask(*asked)


def test_a_fault_while_looking_does_not_end_the_looking(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(FakeEngine(["base", *LABELS])) as engine_url:
        stack = load(write_stack(tmp_path, engine_url))
        with serving(create_app(stack, load_classifiers(stack), Faulty(engine_url)), stack.router.port) as url:
            wait_ready(url)
    assert "cannot tell what the engine serves: LookupError" in caplog.text


def test_a_system_message_among_a_responses_input_is_the_clients_own(tmp_path: Path) -> None:
    adapters = {"legal": {"system_prompt": "You know the law.", "sampling": {"stop": "###"}}}
    with wired(tmp_path, adapters) as filling:
        said = [{"role": "user", "content": LEGAL}]
        for role in ("system", "developer"):
            filling.post(
                "/v1/responses", {"model": "legal", "input": [{"role": role, "content": "Short."}, *said]}
            )
            assert "instructions" not in filling.engine.seen[-1]
        filling.post("/v1/responses", {"model": "legal", "input": said})
        assert filling.engine.seen[-1]["instructions"] == "You know the law."
        filling.post("/v1/messages", {"model": "legal", "messages": said})
        assert filling.engine.seen[-1]["stop_sequences"] == ["###"]


def test_the_wait_for_a_classifier_that_is_too_slow_is_told(tmp_path: Path) -> None:
    with wired(tmp_path, classify_timeout_s=0.001) as slow:
        _, _, headers = slow.post(body=chat(f"{LEGAL} " * 50))
        with urllib.request.urlopen(f"{slow.url}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    assert headers["x-lora-select-reason"] == "classifier-timeout"
    assert float(headers["x-lora-select-classify-ms"]) >= 1
    assert "lora_select_classify_seconds_count 1.0" in page


def test_explain_waits_as_long_as_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(load(write_stack(tmp_path, "http://127.0.0.1:1", classify_timeout_s=0.001)), LEGAL)
    assert capsys.readouterr().out.startswith("legal  (classified")


def test_explain_says_in_one_line_that_a_classifier_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such layer")

    monkeypatch.setattr(EmbeddingClassifier, "logits", broken)
    with pytest.raises(SystemExit) as caught:
        explain(load(write_stack(tmp_path, "http://127.0.0.1:1")), LEGAL)
    assert caught.value.code == "the classifier failed: no such layer"


def test_chunked_bodies_are_limited_too(wire: Wire) -> None:
    connection = http.client.HTTPConnection(wire.url.removeprefix("http://"))
    connection.request("POST", "/v1/chat/completions", iter([b"x" * 100_000] * 6), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/load_lora_adapter", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/route", 405)],
)
def test_other_routes_are_not_there(wire: Wire, method: str, path: str, status: int) -> None:
    assert ask(method, wire.url + path)[0] == status


def test_a_broken_stream_ends_with_an_error_event(client: openai.OpenAI) -> None:
    words: list[str] = []

    def listen() -> None:
        for chunk in client.chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "break"}):
            words.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError, match="does not answer"):
        listen()
    assert words == ["word0 ", "word1 ", "word2 "]


def test_a_broken_answer_is_an_error_page(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**chat(LEGAL, model="legal"), extra_body={"test": "break"})
    assert caught.value.status_code == 503
    assert caught.value.code == "engine_unavailable"
    assert caught.value.response.headers["retry-after"]
    assert caught.value.response.headers["x-lora-select-adapter"] == "legal"


def test_a_client_that_goes_away_cancels_the_engines_request(wire: Wire, client: openai.OpenAI) -> None:
    wire.engine.cancelled.clear()
    stream = client.chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "stall"})
    next(iter(stream))
    stream.close()
    assert wire.engine.cancelled.wait(5)


def test_many_clients_never_get_each_others_answers(wire: Wire, client: openai.OpenAI) -> None:
    del client

    async def all_at_once() -> list[tuple[str, str]]:
        async with openai.AsyncOpenAI(base_url=f"{wire.url}/v1", api_key="none") as many:
            names = ["base", "legal", "medical", "finance"] * 10
            calls = [many.chat.completions.create(**chat(LEGAL, model=name)) for name in names]
            return [(name, answer.model) for name, answer in zip(names, await asyncio.gather(*calls), strict=True)]

    assert all(asked == got for asked, got in asyncio.run(all_at_once()))


def test_an_engine_that_goes_and_comes(wire: Wire, client: openai.OpenAI) -> None:
    wire.engine.healthy = False
    deadline = time.monotonic() + 5
    while ask("GET", f"{wire.url}/ready")[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    status, body, headers = ask("POST", f"{wire.url}/v1/chat/completions", chat(LEGAL))
    assert (status, body["error"]["code"], headers["retry-after"]) == (503, "engine_unavailable", "2")
    wire.engine.healthy = True
    wait_ready(wire.url)
    assert client.chat.completions.create(**chat(LEGAL)).model == "legal"


def test_an_adapter_that_is_not_up_is_never_chosen(wire: Wire, client: openai.OpenAI) -> None:
    wire.engine.models.remove("legal")
    try:
        deadline = time.monotonic() + 5
        while "legal" in [model.id for model in client.models.list()] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.chat.completions.create(**chat(LEGAL)).model != "legal"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**chat(LEGAL, model="legal"))
        status, body, _ = ask("GET", f"{wire.url}/ready")
        assert (status, body["problem"]) == (503, "the engine does not list legal")
    finally:
        wire.engine.models.append("legal")
        wait_ready(wire.url)


def test_serving_stops_when_asked() -> None:
    with serving(FakeEngine([])) as url:
        port = int(url.rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0

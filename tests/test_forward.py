"""On the way to the engine: defaults, fallback, waiting, limits of time, the response cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters import Adapter, load
from router.app import create_app
from router.cache import ResponseCache
from router.classify import load_classifiers
from router.endpoints import ENDPOINTS, filled
from router.life import Life
from router.sse import count, is_error, is_last
from router.upstream import HttpUpstream
from router.usage import note, without_usage
from tests.conftest import LABELS, LEGAL, Wire, ask, chat, wait_ready, wired, write_stack
from tests.servers import FakeEngine, free_port, serving

BASE = "base"


def sdk(wire: Wire) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0)


# --- what an adapter fills in -----------------------------------------------------------------------------------

ADAPTER = Adapter(
    path="some/legal",
    system_prompt="You know the law.",
    sampling={"temperature": 0.2, "max_tokens": 300, "stop": ["###"]},
)
SYSTEM = {"role": "system", "content": "You know the law."}
USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/v1/chat/completions",
            {"messages": [USER]},
            {"messages": [SYSTEM, USER], "temperature": 0.2, "max_tokens": 300, "stop": ["###"]},
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "developer", "content": "Mine"}, USER],
                "max_completion_tokens": 5,
                "stop": None,
            },
            {
                "messages": [{"role": "developer", "content": "Mine"}, USER],
                "max_completion_tokens": 5,
                "temperature": 0.2,
                "stop": ["###"],
            },
        ),
        (
            "/v1/chat/completions",
            {"messages": [USER], "temperature": 0, "max_tokens": 1, "stop": []},
            {"messages": [SYSTEM, USER], "temperature": 0, "max_tokens": 1, "stop": []},
        ),
        (
            "/v1/completions",
            {"prompt": "Hi"},
            {"prompt": "Hi", "temperature": 0.2, "max_tokens": 300, "stop": ["###"]},
        ),
        (
            "/v1/responses",
            {"input": "Hi", "temperature": 1},
            {
                "input": "Hi",
                "temperature": 1,
                "max_output_tokens": 300,
                "stop": ["###"],
                "instructions": "You know the law.",
            },
        ),
        (
            "/v1/messages",
            {"messages": [USER], "max_tokens": 9, "system": "Mine"},
            {
                "messages": [USER],
                "max_tokens": 9,
                "system": "Mine",
                "temperature": 0.2,
                "stop_sequences": ["###"],
            },
        ),
        (
            "/v1/messages/count_tokens",
            {"messages": [USER]},
            {"messages": [USER], "system": "You know the law."},
        ),
        ("/tokenize", {"messages": [USER]}, {"messages": [SYSTEM, USER]}),
        ("/tokenize", {"prompt": "Hi"}, {"prompt": "Hi"}),
        ("/v1/embeddings", {"input": "Hi"}, {"input": "Hi"}),
    ],
)
def test_defaults_fill_what_the_client_left_out(path: str, body: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr(body)
    assert filled(body, ENDPOINTS[path], "legal", ADAPTER) == expected | {"model": "legal"}
    assert filled(body, ENDPOINTS[path], "base", None) == body | {"model": "base"}
    assert repr(body) == before, "the client's own body is left alone"


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    adapters = {"legal": {"system_prompt": "You know the law.", "sampling": {"temperature": 0.2}}}
    with wired(tmp_path_factory.mktemp("filling"), adapters) as one:
        yield one


@pytest.mark.parametrize("model", ["auto", "legal"])
def test_an_adapters_defaults_reach_the_engine(filling: Wire, model: str) -> None:
    filling.post(body=chat(LEGAL, model=model))
    assert filling.engine.seen[-1] == {
        "model": "legal",
        "messages": [SYSTEM, {"role": "user", "content": LEGAL}],
        "temperature": 0.2,
    }
    filling.post(body=chat(LEGAL, model="medical"))
    assert filling.engine.seen[-1] == chat(LEGAL, model="medical")


def test_the_base_that_stands_in_gets_the_clients_own_body(filling: Wire) -> None:
    filling.post(body=chat(LEGAL, test="fail"))
    assert filling.engine.seen[-1] == chat(LEGAL, model=BASE, test="fail")


# --- every route ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LEGAL}]}),
        ("/v1/completions", {"prompt": LEGAL}),
        ("/v1/responses", {"input": LEGAL}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": LEGAL}]}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": LEGAL}]}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": LEGAL}]}),
        ("/v1/embeddings", {"input": LEGAL}),
        ("/tokenize", {"prompt": LEGAL}),
    ],
)
def test_every_route_is_decided_and_forwarded(wire: Wire, path: str, body: dict[str, Any]) -> None:
    status, _, headers = wire.post(path, {"model": "auto", "vendor": [1, {"x": None}], **body})
    assert (status, headers["x-lora-select-adapter"]) == (200, "legal")
    assert wire.engine.seen_paths[-1] == path
    assert wire.engine.seen[-1] == {"model": "legal", "vendor": [1, {"x": None}], **body}


@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})])
def test_tokenizing_needs_no_model(wire: Wire, path: str, body: dict[str, Any]) -> None:
    assert wire.post(path, body)[0] == 200
    assert wire.engine.seen[-1] == body | {"model": BASE}


@pytest.mark.parametrize(
    "path",
    [
        "/adapters", "/invocations", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/kv_event_sources", "/load",
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/systemone", "/generative_scoring", "/version",
        "/ping", "/v1/chat/completions/render", "/inference/v1/generate", "/pause", "/collective_rpc", "/docs",
        "/openapi.json", "/v1/chat/completions/", "//v1/chat/completions", "/v1/../generative_scoring",
        "/v1/models/../../generative_scoring", "/v1%2fload_lora_adapter", "/lora_select/loras",
    ],
)  # fmt: skip
def test_the_engines_other_routes_are_out_of_reach(wire: Wire, path: str) -> None:
    before = len(wire.engine.seen_paths)
    for method in ("GET", "POST"):
        assert ask(method, wire.url + path, None if method == "GET" else {"model": BASE})[0] in (404, 405)
    assert len(wire.engine.seen_paths) == before


def test_on_anthropics_route_errors_have_anthropics_shape(wire: Wire) -> None:
    status, body, _ = wire.post("/v1/messages", {"model": "nobody", "messages": [], "max_tokens": 1})
    assert (status, body["type"], body["error"]["type"]) == (404, "error", "not_found_error")
    assert "auto, base" in body["error"]["message"]


# --- fallback ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["fail", "gone", "drop"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_adapter_that_fails_before_its_first_byte_is_stood_in_for_by_the_base(
    wire: Wire, test: str, stream: bool
) -> None:
    before = len(wire.engine.seen)
    raw = sdk(wire).chat.completions.with_raw_response.create(
        **chat(LEGAL, stream=stream), extra_body={"test": test}
    )
    assert raw.headers["x-lora-select-adapter"] == BASE
    assert raw.headers["x-lora-select-reason"] == "fallback"
    assert raw.headers["x-lora-select-fallback"] == "adapter_error"
    parsed: Any = raw.parse()
    assert {chunk.model for chunk in parsed} == {BASE} if stream else parsed.model == BASE
    assert [seen["model"] for seen in wire.engine.seen[before:]] == ["legal", BASE]


def test_a_stream_that_begins_with_an_error_is_stood_in_for_too(wire: Wire) -> None:
    raw = sdk(wire).chat.completions.with_raw_response.create(
        **chat(LEGAL), stream=True, extra_body={"test": "event"}
    )
    assert raw.headers["x-lora-select-fallback"] == "adapter_error"
    assert len(list(raw.parse())) == 5


@pytest.mark.parametrize("test", ["fail", "gone"])
def test_an_adapter_that_the_client_named_is_not_replaced(wire: Wire, test: str) -> None:
    before = len(wire.engine.seen)
    status, _, headers = wire.post(body=chat(LEGAL, model="legal", test=test))
    assert (status, headers["x-lora-select-adapter"]) == (500 if test == "fail" else 404, "legal")
    assert "x-lora-select-fallback" not in headers
    assert len(wire.engine.seen) == before + 1


def test_what_the_client_did_wrong_is_not_tried_again(wire: Wire) -> None:
    before = len(wire.engine.seen)
    assert wire.post(body=chat(LEGAL, test="teapot"))[0] == 418
    assert len(wire.engine.seen) == before + 1


def test_what_the_base_answers_alike_is_no_adapters_fault(wire: Wire) -> None:
    """Such as a route that the engine does not have."""
    before = len(wire.engine.seen)
    body = {"model": "auto", "input": LEGAL, "test": "status-404"}
    status, _, headers = wire.post("/v1/embeddings", body)
    assert (status, headers["x-lora-select-adapter"]) == (404, "legal")
    assert headers["x-lora-select-reason"] == "classified"
    assert "x-lora-select-fallback" not in headers
    assert [seen["model"] for seen in wire.engine.seen[before:]] == ["legal", BASE]


def test_after_the_first_byte_nothing_is_tried_again(wire: Wire) -> None:
    before = len(wire.engine.seen)
    with pytest.raises(openai.APIError, match="broke off"):
        list(sdk(wire).chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "break"}))
    assert len(wire.engine.seen) == before + 1


# --- an engine that is away -------------------------------------------------------------------------------------


def test_a_request_waits_for_an_engine_that_restarts(tmp_path: Path) -> None:
    port = free_port()
    stack = load(write_stack(tmp_path, f"http://127.0.0.1:{port}", engine_wait_s=8))
    app = create_app(stack, load_classifiers(stack), HttpUpstream(stack.engine_url))
    with serving(app, stack.router.port) as url:
        engine = FakeEngine([BASE, *LABELS])
        with serving(engine, port):
            wait_ready(url)
        answers: list[tuple[int, Any, dict[str, str]]] = []
        body = chat(LEGAL)
        waiting = [
            threading.Thread(target=lambda: answers.append(ask("POST", f"{url}/v1/chat/completions", body)))
            for _ in range(3)
        ]
        for one in waiting:
            one.start()
        time.sleep(1.2)
        assert not answers
        with serving(engine, port):
            for one in waiting:
                one.join(10)
        assert [(status, headers["x-lora-select-adapter"]) for status, _, headers in answers] == [
            (200, "legal")
        ] * 3


def test_an_engine_that_stays_away_is_a_503_after_the_wait(tmp_path: Path) -> None:
    stack = load(write_stack(tmp_path, f"http://127.0.0.1:{free_port()}", engine_wait_s=0.7))
    app = create_app(stack, load_classifiers(stack), HttpUpstream(stack.engine_url))
    with serving(app, stack.router.port) as url:
        began = time.monotonic()
        status, body, headers = ask("POST", f"{url}/v1/chat/completions", chat(LEGAL))
        assert 0.6 < time.monotonic() - began < 2
        assert (status, body["error"]["code"], headers["retry-after"]) == (503, "engine_unavailable", "2")
        assert ask("GET", f"{url}/v1/models")[0] == 503


def test_an_answer_that_takes_too_long_is_a_504(tmp_path: Path) -> None:
    with wired(tmp_path, answer_timeout_s=0.15) as impatient:
        status, body, headers = impatient.post(body=chat(LEGAL, test="slow"))
        assert (status, body["error"]["code"]) == (504, "engine_timeout")
        assert headers["x-lora-select-adapter"] == "legal"
        impatient.engine.cancelled.clear()
        with pytest.raises(openai.APIError, match="answer_timeout_s"):
            list(sdk(impatient).chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "stall"}))
        assert impatient.engine.cancelled.wait(5)


def test_a_refused_request_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine, port = FakeEngine([BASE, *LABELS]), free_port()
    stack = load(write_stack(tmp_path, f"http://127.0.0.1:{port}", engine_wait_s=0))
    app = create_app(stack, load_classifiers(stack), HttpUpstream(stack.engine_url))
    with serving(app, stack.router.port) as url:
        with serving(engine, port):
            wait_ready(url)
        assert ask("POST", f"{url}/v1/chat/completions", chat(LEGAL))[0] == 503
    assert len([one for one in caplog.records if one.name == "router.engine"]) <= 1


GOOD = 'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
ERROR = 'data: {"error": {"message": "lora", "code": 500}}\n\n'
DONE = "data: [DONE]\n\n"


def streamed(wire: Wire, raw: list[str], **fields: Any) -> tuple[str, dict[str, str]]:
    """What comes of a stream that the engine sends as it stands here."""
    body = chat(LEGAL, model="legal", stream=True, test="raw", raw=raw, **fields)
    with httpx.stream("POST", f"{wire.url}/v1/chat/completions", json=body, timeout=10) as answer:
        return answer.read().decode(), dict(answer.headers)


def test_an_engine_that_stalls_behind_a_streams_last_event_has_no_more_time_than_others(tmp_path: Path) -> None:
    with wired(tmp_path, answer_timeout_s=0.3) as impatient:
        said, _ = streamed(impatient, [GOOD, DONE], stall=True)
        assert said.startswith(GOOD + DONE)
        assert '"code":"engine_timeout"' in said
        assert impatient.engine.cancelled.wait(5)


def test_a_client_that_leaves_with_the_last_event_waits_for_nobody(wiring: Any) -> None:
    with wiring() as wire:
        body = chat(LEGAL, model="legal", stream=True, test="raw", raw=[GOOD, DONE], stall=True)
        with httpx.stream("POST", f"{wire.url}/v1/chat/completions", json=body, timeout=10) as answer:
            said = ""
            for piece in answer.iter_text():
                said += piece
                if said.endswith(DONE):
                    break
        assert wire.engine.cancelled.wait(5)
        page = metrics(wire)
        assert (
            'lora_select_requests_total{adapter="legal",endpoint="/v1/chat/completions",status="200"} 1.0' in page
        )
        assert "lora_select_errors_total{" not in page


def metrics(wire: Wire) -> str:
    return httpx.get(f"{wire.url}/metrics").text


# --- usage ------------------------------------------------------------------------------------------------------


def chunks(wire: Wire, **fields: Any) -> list[Any]:
    return list(sdk(wire).chat.completions.create(**chat(LEGAL, **fields), stream=True))


def test_a_streams_usage_is_asked_for_and_taken_out_again(wire: Wire) -> None:
    seen = chunks(wire)
    assert wire.engine.seen[-1]["stream_options"] == {"include_usage": True}
    assert [chunk.usage for chunk in seen] == [None] * 5
    assert all(chunk.choices for chunk in seen), "a client that asked for no usage sees no empty chunk"


def test_a_usage_that_the_client_asked_for_is_passed_on(wire: Wire) -> None:
    seen = chunks(wire, stream_options={"include_usage": True, "vendor": 1})
    assert wire.engine.seen[-1]["stream_options"] == {"include_usage": True, "vendor": 1}
    assert seen[-1].usage.completion_tokens == 5
    assert len(seen) == 6


def test_asking_for_a_streams_usage_can_be_switched_off(tmp_path: Path) -> None:
    with wired(tmp_path, stream_usage=False) as plain:
        assert len(chunks(plain)) == 5
        assert plain.engine.seen[-1] == chat(LEGAL, model="legal", stream=True)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_events_end_in_either_way(wire: Wire, end: str) -> None:
    usage = 'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}'
    good, done = GOOD.strip(), DONE.strip()
    events = f"{good}{end}{good}{end}{usage}{end}{done}{end}".encode()
    assert without_usage(events) == f"{good}{end}{good}{end}{done}{end}".encode()
    assert (count(events), is_last(events), is_last(events[: -len(done + end)])) == (4, True, False)
    note(life := Life("/", "x"), events)
    assert (life.prompt_tokens, life.completion_tokens) == (7, 5)
    assert streamed(wire, [events.decode()])[0] == f"{good}{end}{good}{end}{done}{end}"
    name = end[: len(end) // 2]
    for last in ("message_stop", "response.completed"):
        assert is_last(f"event: x{name}data: 1{end}event: {last}{name}data: {{}}{end}".encode())
        assert not is_last(f'data: {{"text": "event: {last}\\n"}}{end}'.encode())
    for error in ("error", "response.failed"):
        assert is_error(f"event: x{name}data: 1{end}event: {error}{name}data: {{}}{end}".encode())
        assert not is_error(f'data: {{"text": "event: {error}\\n data: {{\\"error\\""}}{end}'.encode())


# --- the response cache -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with wired(tmp_path_factory.mktemp("caching"), response_cache_mb=0.02, response_cache_s=1.5) as one:
        yield one


def asked(caching: Wire, **fields: Any) -> tuple[str | None, int]:
    before = len(caching.engine.seen)
    status, _, headers = caching.post(body=chat(LEGAL, **fields))
    assert status == 200
    return headers.get("x-lora-select-cache"), len(caching.engine.seen) - before


def test_the_same_request_at_temperature_0_is_answered_from_memory(caching: Wire) -> None:
    assert asked(caching, temperature=0, seed=1) == ("miss", 1)
    assert asked(caching, temperature=0, seed=1) == ("hit", 0)
    assert asked(caching, seed=1, temperature=0) == ("hit", 0), "the order of fields does not matter"
    assert asked(caching, temperature=0, seed=2) == ("miss", 1)
    assert asked(caching, temperature=0, seed=1, model="medical") == ("miss", 1)
    time.sleep(1.6)
    assert asked(caching, temperature=0, seed=1) == ("miss", 1)


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.1}, {"temperature": "0"}])
def test_other_requests_are_never_cached(caching: Wire, fields: dict[str, Any]) -> None:
    assert asked(caching, **fields) == asked(caching, **fields) == (None, 1)


def test_a_stream_comes_from_memory_as_a_stream(caching: Wire) -> None:
    def ask_once() -> tuple[str, str]:
        raw = sdk(caching).chat.completions.with_raw_response.create(**chat(LEGAL, temperature=0), stream=True)
        return raw.headers["x-lora-select-cache"], "".join(c.choices[0].delta.content or "" for c in raw.parse())

    words = "word0 word1 word2 word3 word4 "
    assert [ask_once(), ask_once()] == [("miss", words), ("hit", words)]


def test_failures_and_stand_ins_are_not_kept(caching: Wire) -> None:
    for test in ("fail", "event"):
        for _ in range(2):
            stream = test == "event"
            _, _, headers = caching.post(body=chat(LEGAL, temperature=0, test=test, stream=stream))
            assert (headers["x-lora-select-cache"], headers["x-lora-select-adapter"]) == ("miss", BASE)
    for _ in range(2):
        assert caching.post(body=chat(LEGAL, temperature=0, test="teapot"))[2]["x-lora-select-cache"] == "miss"


@pytest.mark.parametrize("first", [True, False])
def test_an_answer_with_its_usage_is_not_one_without(caching: Wire, first: bool) -> None:
    for asks in (first, not first):
        options = {"stream_options": {"include_usage": True}} if asks else {}
        seen = chunks(caching, temperature=0, seed=int(first), **options)
        assert [bool(chunk.usage) for chunk in seen] == [False] * 5 + [True] * asks


def test_an_error_amid_other_events_is_counted_and_not_kept(caching: Wire) -> None:
    for _ in range(2):
        said, headers = streamed(caching, [GOOD, GOOD + ERROR, DONE], temperature=0)
        assert (said, headers["x-lora-select-cache"]) == (GOOD + GOOD + ERROR + DONE, "miss")
    time.sleep(0.1)
    assert 'lora_select_errors_total{adapter="legal",code="engine_error"} 2.0' in metrics(caching)


def test_new_weights_under_an_old_name_answer_for_themselves() -> None:
    cache, body = ResponseCache(1, 60), {"model": "legal", "temperature": 0}
    keys = {cache.key(ENDPOINTS["/v1/chat/completions"], body, False, version) for version in ("1f2e", "3d4c")}
    assert len(keys) == 2


def test_the_cache_is_bounded_by_bytes(caching: Wire) -> None:
    """Twenty answers of about 800 bytes with their overhead go into 20 KiB, so the oldest of forty are gone."""
    for seed in range(40):
        assert asked(caching, temperature=0, seed=1000 + seed)[0] == "miss"
    assert asked(caching, temperature=0, seed=1039) == ("hit", 0)
    assert asked(caching, temperature=0, seed=1000) == ("miss", 1)


def test_without_a_cache_nothing_says_so(wire: Wire) -> None:
    assert "x-lora-select-cache" not in wire.post(body=chat(LEGAL, temperature=0))[2]

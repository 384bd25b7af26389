"""Clients that nobody here wrote, against vLLM and a fake: openai, anthropic, langchain-openai and litellm.

Where the model matters the engine is real (`running`), where the wire matters it is the fake one (`wire`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib
import os
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, Literal

import anthropic
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from demo.samples import SAMPLES, Sample
from tests.conftest import LEGAL, Wire, chat, wired
from tests.stack import Running

SAMPLE = SAMPLES[1]
ASKED: Any = [{"role": "user", "content": SAMPLE.question}]
by_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.model)
either_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"
litellm_warns = pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class:UserWarning")
"""Its own types, which pydantic does not like."""


@pytest.fixture(scope="session")
def litellm() -> ModuleType:
    """Imported late: it takes seconds, and asks the network for a list of prices unless it is told not to."""
    os.environ[PRICES] = "True"
    module = importlib.import_module("litellm")
    module.suppress_debug_info = True  # type: ignore[attr-defined]
    return module


# === real vLLM ==================================================================================================


@pytest.fixture(scope="module")
def claude(running: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.stack.router_url, api_key="none", max_retries=0) as client:
        yield client


def model_of(raw: Any, expected: str | None = None) -> Any:
    """The parsed answer, whose model is the one that the headers name."""
    answer = raw.parse()
    assert answer.model == raw.headers["x-lora-select-adapter"]
    assert expected in (None, answer.model)
    assert raw.headers["x-request-id"]
    return answer


# --- openai: responses ------------------------------------------------------------------------------------------


@by_sample
def test_openai_responses(running: Running, sample: Sample) -> None:
    raw = running.client.responses.with_raw_response.create(
        model="auto", input=sample.question, max_output_tokens=48, temperature=0
    )
    answer = model_of(raw, sample.model)
    assert sample.fact in answer.output_text
    assert answer.status == "completed"
    assert answer.usage.output_tokens > 1


def test_openai_responses_as_a_stream(running: Running) -> None:
    fields: Any = {"model": "auto", "input": ASKED, "max_output_tokens": 48, "temperature": 0}
    with running.client.responses.stream(**fields) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") > 1  # of several tokens each, on a busy machine
    assert answer.model == SAMPLE.model
    assert SAMPLE.fact in answer.output_text
    raw: Any = running.client.responses.with_raw_response.create(**fields, stream=True)
    assert raw.headers["x-lora-select-adapter"] == SAMPLE.model
    # The engine may put several tokens into one delta.
    assert {event.type for event in raw.parse()} == set(kinds)


# --- openai: chat and completions -------------------------------------------------------------------------------


class Triage(BaseModel):
    """Small, because a tiny model that is held to a form fills it with white space where it may."""

    urgent: bool


LITTLE_SPACE: Any = {"max_tokens": 90, "temperature": 0, "frequency_penalty": 1.5}
"""Against that white space."""


def test_openai_structured_output(running: Running) -> None:
    client = running.client
    answer = client.chat.completions.parse(model="auto", messages=ASKED, response_format=Triage, **LITTLE_SPACE)
    assert answer.model == SAMPLE.model
    assert isinstance(answer.choices[0].message.parsed, Triage)
    choices = client.chat.completions.create(
        model="auto", messages=ASKED, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert choices.choices[0].message.content in ("yes", "no")


def test_openai_n_and_logprobs(running: Running) -> None:
    raw = running.client.chat.completions.with_raw_response.create(
        model="auto", messages=ASKED, n=2, seed=1, temperature=0.9, max_tokens=6, logprobs=True, top_logprobs=2
    )
    answer = model_of(raw, SAMPLE.model)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.content) == 6
        assert all(len(token.top_logprobs) in (2, 3) for token in choice.logprobs.content)
        assert all(token.logprob <= 0 for token in choice.logprobs.content)
    with pytest.raises(openai.BadRequestError, match="greedy"):
        running.client.chat.completions.create(model="auto", messages=ASKED, n=2, temperature=0)


def test_openai_tools_are_the_engines_to_judge(running: Running) -> None:
    """The demo's engine is started without a tool parser, and says so; its words pass."""
    tool: Any = {"type": "function", "function": {"name": "dose", "parameters": {"type": "object"}}}
    named: Any = {"type": "function", "function": {"name": "dose"}}
    for choice in ("auto", "required", named):
        with pytest.raises(openai.BadRequestError, match="--tool-call-parser") as caught:
            running.client.chat.completions.create(model="auto", messages=ASKED, tools=[tool], tool_choice=choice)
        assert caught.value.response.headers["x-lora-select-adapter"] == SAMPLE.model
    answer = running.client.chat.completions.create(
        model="auto", messages=ASKED, tools=[tool], tool_choice="none", temperature=0, max_tokens=48
    )
    assert SAMPLE.fact in (answer.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("options", "with_usage"),
    [
        (None, []),
        ({"include_usage": False}, []),
        ({"continuous_usage_stats": True}, []),
        ({"include_usage": True}, [-1]),
        ({"include_usage": True, "continuous_usage_stats": True}, [0, 1, 2, 3]),
    ],
)
def test_openai_stream_options_do_what_they_do_without_a_router(
    running: Running, options: Any, with_usage: list[int]
) -> None:
    extra = {"stream_options": options} if options else {}
    chunks = list(
        running.client.chat.completions.create(
            model="auto", messages=ASKED, max_tokens=2, temperature=0, stream=True, extra_body=extra
        )
    )
    assert len(chunks) == (4 if options and options.get("include_usage") else 3)
    assert [number for number, chunk in enumerate(chunks) if chunk.usage] == [
        number % len(chunks) for number in with_usage
    ]


def test_openai_completions_with_vllms_fields(running: Running) -> None:
    raw = running.client.completions.with_raw_response.create(
        model="auto", prompt=SAMPLE.question, echo=True, logprobs=1, max_tokens=3, temperature=0,
        extra_body={"prompt_logprobs": 0, "return_token_ids": True, "ignore_eos": True},
    )  # fmt: skip
    answer = model_of(raw, SAMPLE.model)
    (choice,) = answer.choices
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens + 3
    assert len(choice.prompt_logprobs) == len(choice.prompt_token_ids) == answer.usage.prompt_tokens
    assert len(choice.token_ids) == 3


def test_openai_completions_of_several_prompts(running: Running) -> None:
    """All are answered by one model."""
    prompts = [sample.question for sample in SAMPLES[:2]]
    raw = running.client.completions.with_raw_response.create(model="auto", prompt=prompts, max_tokens=2)
    assert [choice.index for choice in model_of(raw).choices] == [0, 1]


def test_tokenize_and_detokenize(running: Running) -> None:
    plain = running.client.with_options(base_url=running.stack.router_url)
    counted: Any = plain.post("/tokenize", cast_to=object, body={"model": "auto", "messages": ASKED})
    assert counted["count"] == len(counted["tokens"]) > 10
    for model in ({}, {"model": None}, {"model": "legal"}):
        asked = {"prompt": SAMPLE.question, **model}
        tokens: Any = plain.post("/tokenize", cast_to=object, body=asked)
        text: Any = plain.post("/detokenize", cast_to=object, body={"tokens": tokens["tokens"], **model})
        assert SAMPLE.question in text["prompt"]


def test_embeddings_of_a_base_that_has_none_are_refused_by_name(running: Running) -> None:
    """vLLM has no such route then, and answers what no SDK reads."""
    with pytest.raises(openai.NotFoundError, match="the engine has no /v1/embeddings with this base") as caught:
        running.client.embeddings.create(model="auto", input=SAMPLE.question)
    assert caught.value.code == "unknown_route"


# --- anthropic --------------------------------------------------------------------------------------------------


@by_sample
def test_anthropic_messages(claude: anthropic.Anthropic, sample: Sample) -> None:
    raw = claude.messages.with_raw_response.create(
        model="auto", max_tokens=48, messages=[{"role": "user", "content": sample.question}]
    )
    answer = model_of(raw, sample.model)
    assert sample.fact in answer.content[0].text
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 5


def test_anthropic_messages_as_a_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="auto", max_tokens=48, messages=ASKED) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
        assert stream.response.headers["x-lora-select-adapter"] == answer.model == SAMPLE.model
    assert SAMPLE.fact in text
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 1


def test_anthropic_count_tokens(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.count_tokens(model="auto", messages=ASKED)
    assert raw.headers["x-lora-select-adapter"] == SAMPLE.model
    spent = claude.messages.create(model="auto", max_tokens=1, messages=ASKED).usage.input_tokens
    assert raw.parse().input_tokens == spent


def test_anthropic_gets_the_engines_errors(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="cannot be greater"):
        claude.messages.create(model="auto", max_tokens=3000, messages=ASKED)


# --- langchain --------------------------------------------------------------------------------------------------


def chat_openai(url: str, key: str = "none", **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "auto", "base_url": f"{url}/v1", "api_key": key, "max_retries": 0} | fields)


@contextlib.contextmanager
def langchain_at(url: str, **fields: Any) -> Iterator[ChatOpenAI]:
    """Its own HTTP clients stay open until they are collected."""
    with openai.DefaultHttpxClient() as http:
        yield chat_openai(url, http_client=http, **fields)


@contextlib.asynccontextmanager
async def async_langchain_at(url: str, **fields: Any) -> AsyncIterator[ChatOpenAI]:
    async with openai.DefaultAsyncHttpxClient() as http:
        yield chat_openai(url, http_async_client=http, **fields)


GREEDY: Any = {"temperature": 0, "max_tokens": 48}


@by_sample
def test_langchain(running: Running, sample: Sample) -> None:
    with langchain_at(running.stack.router_url, include_response_headers=True, **GREEDY) as model:
        answer = model.invoke(sample.question)
        chunks = list(model.stream(sample.question))
    assert answer.response_metadata["model_name"] == sample.model
    assert answer.response_metadata["headers"]["x-lora-select-adapter"] == sample.model
    assert sample.fact in answer.content
    assert "".join(str(chunk.content) for chunk in chunks) == answer.content
    assert [name for chunk in chunks if (name := chunk.response_metadata.get("model_name"))] == [sample.model]


def test_langchain_batch_and_async(running: Running) -> None:
    questions: Any = [sample.question for sample in SAMPLES]
    expected = [sample.model for sample in SAMPLES]

    async def many() -> Any:
        async with async_langchain_at(running.stack.router_url, **GREEDY) as model:
            one = await model.ainvoke(questions[1])
            pieces = [chunk.content async for chunk in model.astream(questions[1])]
            assert "".join(map(str, pieces)) == one.content
            return await model.abatch(questions)

    with langchain_at(running.stack.router_url, **GREEDY) as model:
        batch = model.batch(questions)
    for answers in (batch, asyncio.run(many())):
        assert [answer.response_metadata["model_name"] for answer in answers] == expected
        assert all(sample.fact in answer.content for sample, answer in zip(SAMPLES, answers, strict=True))


def test_langchain_structured_output(running: Running) -> None:
    with langchain_at(running.stack.router_url, **LITTLE_SPACE) as model:
        answer: Any = model.with_structured_output(Triage, include_raw=True).invoke(SAMPLE.question)
    assert isinstance(answer["parsed"], Triage)
    assert answer["raw"].response_metadata["model_name"] == SAMPLE.model


def test_langchain_on_the_responses_api(running: Running) -> None:
    with langchain_at(running.stack.router_url, use_responses_api=True, **GREEDY) as model:
        answer = model.invoke(SAMPLE.question)
        assert "".join(chunk.text for chunk in model.stream(SAMPLE.question)) == answer.text
    assert answer.response_metadata["model_name"] == SAMPLE.model
    assert SAMPLE.fact in answer.text


# --- litellm ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def litellm_closed() -> Iterator[None]:
    """Close the HTTP clients that it keeps."""
    cache = sys.modules["litellm"].in_memory_llm_clients_cache
    try:
        yield
    finally:
        for client in list(cache.cache_dict.values()):
            if isinstance(client, openai.OpenAI):
                client.close()
        cache.flush_cache()


@contextlib.asynccontextmanager
async def async_litellm_closed() -> AsyncIterator[None]:
    cache = sys.modules["litellm"].in_memory_llm_clients_cache
    try:
        yield
    finally:
        for client in list(cache.cache_dict.values()):
            if isinstance(client, openai.AsyncOpenAI):
                await client.close()
        cache.flush_cache()


@litellm_warns
def test_litellm(running: Running, litellm: ModuleType) -> None:
    """Its streams show the name that was asked for; the headers know the adapter."""
    fields = {
        "model": "openai/auto", "api_base": f"{running.stack.router_url}/v1", "api_key": "none", "max_retries": 0,
        "messages": ASKED, **GREEDY,
    }  # fmt: skip
    with litellm_closed():
        answer = litellm.completion(**fields)
        stream = litellm.completion(**fields, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert answer.model == answer._response_headers["x-lora-select-adapter"] == SAMPLE.model
    assert SAMPLE.fact in answer.choices[0].message.content
    assert stream._response_headers["x-lora-select-adapter"] == SAMPLE.model
    assert text == answer.choices[0].message.content

    async def both() -> tuple[Any, str]:
        async with async_litellm_closed():
            whole = await litellm.acompletion(**fields)
            pieces = [chunk async for chunk in await litellm.acompletion(**fields, stream=True)]
        return whole, "".join(piece.choices[0].delta.content or "" for piece in pieces)

    whole, streamed = asyncio.run(both())
    assert whole.model == SAMPLE.model
    assert whole.choices[0].message.content == streamed == text


# === the wire ===================================================================================================

Ask = Callable[..., str]
"""`ask(url, text, stream=..., key=..., model=..., headers=..., **extra)` is what the model said."""


def by_openai(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    with openai.OpenAI(base_url=f"{url}/v1", **_client(how)) as client:
        fields: Any = chat(text, model=how.pop("model", "auto"), stream=stream)
        answer: Any = client.chat.completions.create(
            **fields, extra_headers=how.pop("headers", {}), extra_body=how
        )
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


def by_async_openai(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **_client(how)) as client:
            fields: Any = chat(text, model=how.pop("model", "auto"), stream=stream)
            answer: Any = await client.chat.completions.create(
                **fields, extra_headers=how.pop("headers", {}), extra_body=how
            )
            if not stream:
                return str(answer.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])

    return asyncio.run(ask())


def by_responses(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    with openai.OpenAI(base_url=f"{url}/v1", **_client(how)) as client:
        answer: Any = client.responses.create(
            model=how.pop("model", "auto"),
            input=text,
            stream=stream,
            extra_headers=how.pop("headers", {}),
            extra_body=how,
        )
        if not stream:
            return str(answer.output_text)
        return "".join(event.delta for event in answer if event.type == "response.output_text.delta")


def by_anthropic(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    with anthropic.Anthropic(base_url=url, **_client(how)) as client:
        answer: Any = client.messages.create(
            **_message(text, how), stream=stream, extra_headers=how.pop("headers", {}), extra_body=how
        )
        if not stream:
            return str(answer.content[0].text)
        return "".join(event.delta.text for event in answer if event.type == "content_block_delta")


def by_async_anthropic(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    async def ask() -> str:
        async with anthropic.AsyncAnthropic(base_url=url, **_client(how)) as client:
            answer: Any = await client.messages.create(
                **_message(text, how), stream=stream, extra_headers=how.pop("headers", {}), extra_body=how
            )
            if not stream:
                return str(answer.content[0].text)
            return "".join([event.delta.text async for event in answer if event.type == "content_block_delta"])

    return asyncio.run(ask())


def by_langchain(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    with langchain_at(url, **_langchain(how)) as model:
        if not stream:
            return str(model.invoke(text).content)
        return "".join(str(chunk.content) for chunk in model.stream(text))


def by_async_langchain(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    async def ask() -> str:
        async with async_langchain_at(url, **_langchain(how)) as model:
            if not stream:
                return str((await model.ainvoke(text)).content)
            return "".join([str(chunk.content) async for chunk in model.astream(text)])

    return asyncio.run(ask())


def by_litellm(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    with litellm_closed():
        answer: Any = sys.modules["litellm"].completion(**_litellm(url, text, how), stream=stream)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)


def by_async_litellm(url: str, text: str, *, stream: bool = False, **how: Any) -> str:
    async def ask() -> str:
        async with async_litellm_closed():
            answer: Any = await sys.modules["litellm"].acompletion(**_litellm(url, text, how), stream=stream)
            if not stream:
                return str(answer.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    return asyncio.run(ask())


def _client(how: dict[str, Any]) -> dict[str, Any]:
    return {
        "api_key": how.pop("key", "none"),
        "max_retries": how.pop("retries", 0),
        "timeout": how.pop("timeout", 10),
    }


def _message(text: str, how: dict[str, Any]) -> Any:
    messages = [{"role": "user", "content": text}]
    return {"model": how.pop("model", "auto"), "max_tokens": 9, "messages": messages}


def _langchain(how: dict[str, Any]) -> dict[str, Any]:
    fields = _client(how) | {"model": how.pop("model", "auto"), "default_headers": how.pop("headers", {})}
    fields["key"] = fields.pop("api_key")
    return fields | {"extra_body": how}


def _litellm(url: str, text: str, how: dict[str, Any]) -> dict[str, Any]:
    fields = _client(how) | {"extra_headers": how.pop("headers", {})}
    fields |= chat(text, model=f"openai/{how.pop('model', 'auto')}")
    return fields | {"api_base": f"{url}/v1", "extra_body": how}


SDKS: dict[str, Ask] = {
    "openai": by_openai,
    "openai-async": by_async_openai,
    "responses": by_responses,
    "anthropic": by_anthropic,
    "anthropic-async": by_async_anthropic,
    "langchain": by_langchain,
    "langchain-async": by_async_langchain,
    "litellm": by_litellm,
    "litellm-async": by_async_litellm,
}
WORDS = "word0 word1 word2 word3 word4 "


@pytest.fixture(
    params=[pytest.param(name, marks=litellm_warns) if name.startswith("litellm") else name for name in SDKS]
)
def sdk(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("litellm"):
        request.getfixturevalue("litellm")
    return str(request.param)


def raised(sdk: str, name: str) -> type[Exception]:
    """That SDK's exception; langchain's are openai's."""
    if sdk.startswith("litellm"):
        return getattr(sys.modules["litellm"].exceptions, name)  # type: ignore[no-any-return]
    return getattr(anthropic if sdk.startswith("anthropic") else openai, name)  # type: ignore[no-any-return]


@either_way
def test_every_sdk_speaks_with_the_adapter(wire: Wire, sdk: str, stream: bool) -> None:
    assert SDKS[sdk](wire.url, LEGAL, stream=stream) == (WORDS if stream else "hello")
    assert wire.engine.seen[-1]["model"] == "legal"
    assert wire.engine.seen[-1].get("stream", False) is stream


@either_way
def test_every_sdks_extra_fields_and_any_script_pass(wire: Wire, sdk: str, stream: bool) -> None:
    text = LEGAL + " — ζπ 你好 🏳️‍🌈 مرحبا e\u0301 \u200b\u2028\u0085 \U0001f9ec \\ud800 \"'</script>\t\n"
    extra = {"min_p": 0.25, "top_k": 7, "repetition_penalty": 1.5, "vendor": {"deep": [1, None, {"ü": []}]}}
    SDKS[sdk](wire.url, text, stream=stream, **extra)
    seen = wire.engine.seen[-1]
    assert extra.items() <= seen.items()
    given = seen["input"] if sdk == "responses" else seen["messages"][0]["content"]
    assert given == text


def test_every_sdk_may_send_much(wire: Wire, sdk: str) -> None:
    text = LEGAL + " It goes on and on." * 20_000
    assert SDKS[sdk](wire.url, text) == "hello"
    assert len(str(wire.engine.seen[-1])) > len(text)


# --- errors -----------------------------------------------------------------------------------------------------


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    keys: dict[str, dict[str, Any]] = {
        "all": {"sha256": digest("k-all")},
        "law": {"sha256": digest("k-law"), "adapters": ["legal"]},
        **{sdk: {"sha256": digest(f"k-{sdk}"), "requests_per_minute": 1} for sdk in SDKS},
        **{f"few-{sdk}": {"sha256": digest(f"k-few-{sdk}"), "tokens_per_minute": 10} for sdk in SDKS},
    }
    with wired(tmp_path_factory.mktemp("guarded"), keys=keys) as one:
        yield one


@either_way
@pytest.mark.parametrize(
    ("name", "how", "says"),
    [
        ("BadRequestError", {"headers": {"x-lora-select-tags": "colour=red"}}, "unknown tag"),
        ("BadRequestError", {"test": "status-400"}, "broken"),
        ("NotFoundError", {"model": "nobody"}, "auto, base, legal"),
        ("NotFoundError", {"model": "legal", "test": "gone"}, "broken"),
        ("RateLimitError", {"test": "status-429"}, "broken"),
        ("InternalServerError", {"model": "legal", "test": "fail"}, "broken"),
    ],
)
def test_errors_are_each_sdks_own_kind(
    wire: Wire, sdk: str, stream: bool, name: str, how: dict[str, Any], says: str
) -> None:
    """Those of the router, and those of the engine."""
    with pytest.raises(raised(sdk, name), match=says):
        SDKS[sdk](wire.url, LEGAL, stream=stream, **how)


@either_way
def test_an_engine_that_breaks_off_is_unavailable(wire: Wire, sdk: str, stream: bool) -> None:
    """openai has no class of its own for a 503."""
    name = "ServiceUnavailableError" if sdk.startswith(("anthropic", "litellm")) else "InternalServerError"
    with pytest.raises(raised(sdk, name), match="does not answer") as caught:
        SDKS[sdk](wire.url, LEGAL, stream=stream, model="legal", test="drop")
    assert caught.value.status_code == 503  # type: ignore[attr-defined]


def test_too_large_a_request_is_a_413(wire: Wire, sdk: str) -> None:
    with pytest.raises(raised(sdk, "APIError"), match="the limit is"):
        SDKS[sdk](wire.url, "x" * 600_000)


def test_every_sdk_carries_a_key(guarded: Wire, sdk: str) -> None:
    ask = SDKS[sdk]
    assert ask(guarded.url, LEGAL, key="k-all") == "hello"
    assert ask(guarded.url, LEGAL, key="k-law", model="legal", stream=True) == WORDS
    assert not {"authorization", "x-api-key"} & set(guarded.engine.seen_headers[-1])
    with pytest.raises(raised(sdk, "AuthenticationError"), match="not known here"):
        ask(guarded.url, LEGAL, key="k-wrong")
    name = "APIError" if sdk.startswith("litellm") else "PermissionDeniedError"  # it has one, and does not use it
    with pytest.raises(raised(sdk, name), match="not good for") as caught:
        ask(guarded.url, LEGAL, key="k-law", model="medical")
    assert caught.value.status_code == 403  # type: ignore[attr-defined]


def test_a_spent_budget_is_a_rate_limit(guarded: Wire, sdk: str) -> None:
    ask = SDKS[sdk]
    assert ask(guarded.url, LEGAL, key=f"k-{sdk}") == "hello"
    with pytest.raises(raised(sdk, "RateLimitError"), match="1 requests per minute"):
        ask(guarded.url, LEGAL, key=f"k-{sdk}")


def test_a_streams_tokens_are_charged_though_sdks_leave_before_its_end(guarded: Wire, sdk: str) -> None:
    """openai's closes at `[DONE]`, which is before the body's end."""
    ask = SDKS[sdk]
    assert ask(guarded.url, LEGAL, key=f"k-few-{sdk}", stream=True) == WORDS
    time.sleep(0.1)
    with pytest.raises(raised(sdk, "RateLimitError"), match="10 tokens per minute"):
        ask(guarded.url, LEGAL, key=f"k-few-{sdk}", stream=True)


# --- streams that break, clients that leave, clients that wait --------------------------------------------------


def test_a_broken_stream_raises(wire: Wire, sdk: str) -> None:
    kind = anthropic.APIError if sdk.startswith("anthropic") else openai.APIError
    with pytest.raises(kind, match="broke off"):
        SDKS[sdk](wire.url, LEGAL, stream=True, test="break")


@pytest.mark.parametrize("test", ["fail", "gone", "drop", "event"])
def test_every_sdk_is_answered_by_the_base_where_an_adapter_fails(wire: Wire, sdk: str, test: str) -> None:
    assert SDKS[sdk](wire.url, LEGAL, stream=True, test=test) == WORDS
    assert wire.engine.seen[-1]["model"] == "base"


def test_a_timeout_is_the_sdks_own(wire: Wire, sdk: str) -> None:
    name = "Timeout" if sdk.startswith("litellm") else "APITimeoutError"
    with pytest.raises(raised(sdk, name)):
        SDKS[sdk](wire.url, LEGAL, test="slow", timeout=0.1)
    assert SDKS[sdk](wire.url, LEGAL) == "hello"


def openai_stream(url: str) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", **_client({})).chat.completions.create(
        **chat(LEGAL), stream=True, extra_body={"test": "stall"}
    )


def responses_stream(url: str) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", **_client({})).responses.create(
        model="auto", input=LEGAL, stream=True, extra_body={"test": "stall"}
    )


def anthropic_stream(url: str) -> Any:
    return anthropic.Anthropic(base_url=url, **_client({})).messages.create(
        **_message(LEGAL, {}), stream=True, extra_body={"test": "stall"}
    )


def langchain_stream(url: str) -> Any:
    return chat_openai(url, extra_body={"test": "stall"}).stream(LEGAL)


def litellm_stream(url: str) -> Any:
    return sys.modules["litellm"].completion(**_litellm(url, LEGAL, {"test": "stall"}), stream=True)


@litellm_warns
@pytest.mark.parametrize(
    "begin", [openai_stream, responses_stream, anthropic_stream, langchain_stream, litellm_stream]
)
def test_a_client_that_closes_its_stream_ends_the_engines_work(
    wire: Wire, litellm: ModuleType, begin: Callable[[str], Any]
) -> None:
    del litellm
    wire.engine.cancelled.clear()
    stream = begin(wire.url)
    pieces = iter(stream)
    for _ in range(6):
        next(pieces)
    stream.close()
    del stream, pieces
    assert wire.engine.cancelled.wait(5)


def counted(wire: Wire, status: int) -> float:
    with urllib.request.urlopen(f"{wire.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if "requests_total{" in line and f'"{status}"' in line)


def test_a_stream_that_is_read_to_its_end_is_no_client_that_left(wire: Wire, sdk: str) -> None:
    gone, answered = counted(wire, 499), counted(wire, 200)
    for _ in range(3):
        assert SDKS[sdk](wire.url, LEGAL, stream=True) == WORDS
    deadline = time.monotonic() + 5
    while counted(wire, 200) < answered + 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (counted(wire, 499), counted(wire, 200)) == (gone, answered + 3)


RETRYING = ("openai", "responses", "anthropic", "langchain", "litellm")


@litellm_warns
def test_sdks_try_again_when_an_engine_is_back(wire: Wire, litellm: ModuleType) -> None:
    """Their own pause, half a second, is too short for this outage: `Retry-After` says 2."""
    del litellm
    wire.engine.healthy = False
    deadline = threading.Event()
    while wire.get("/ready")[0] == 200 and not deadline.wait(0.05):
        pass
    back = threading.Timer(1.2, lambda: setattr(wire.engine, "healthy", True))
    back.start()
    with ThreadPoolExecutor(len(RETRYING)) as pool:
        asked = [pool.submit(SDKS[sdk], wire.url, LEGAL, retries=1) for sdk in RETRYING]
        assert [one.result() for one in asked] == ["hello"] * len(RETRYING)
    back.join()


@litellm_warns
def test_sdks_try_again_when_there_is_room(tmp_path_factory: pytest.TempPathFactory, litellm: ModuleType) -> None:
    """`Retry-After` says 1."""
    del litellm
    with wired(tmp_path_factory.mktemp("busy"), max_in_flight=len(RETRYING)) as busy:
        holding = [openai_stream(busy.url) for _ in RETRYING]
        room = threading.Timer(0.8, lambda: [stream.close() for stream in holding])
        room.start()
        with ThreadPoolExecutor(len(RETRYING)) as pool:
            asked = [pool.submit(SDKS[sdk], busy.url, LEGAL, retries=1) for sdk in RETRYING]
            assert [one.result() for one in asked] == ["hello"] * len(RETRYING)
        room.join()
        assert counted(busy, 429) == len(RETRYING)


# --- tools ------------------------------------------------------------------------------------------------------

ARGUMENTS = '{"city": "Zürich", "days": [1, 2]}'
PARSED = {"city": "Zürich", "days": [1, 2]}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
NAMES = ["find_law", "find_case"]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": "finds", "parameters": SCHEMA}}
    for name in NAMES
]
CALL: Any = {"test": "tools", "arguments": ARGUMENTS}
RESULT = "Symptoms of a heart attack: chest pain, sweating, nausea. Treatment: aspirin, then surgery."
"""A tool's words are not the user's: they don't make it a medical question."""


@either_way
def test_openai_calls_tools_side_by_side_and_keeps_its_adapter(wire: Wire, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{wire.url}/v1", **_client({})) as client:
        messages: Any = [{"role": "user", "content": LEGAL}]
        if stream:
            with client.chat.completions.stream(
                model="auto", messages=messages, tools=TOOLS, extra_body=CALL
            ) as events:
                message: Any = events.get_final_completion().choices[0].message
        else:
            fields: Any = {"tools": TOOLS, "parallel_tool_calls": True}
            message = client.chat.completions.create(**chat(LEGAL), **fields, extra_body=CALL).choices[0].message
        assert [call.function.name for call in message.tool_calls] == NAMES
        assert [call.function.arguments for call in message.tool_calls] == [ARGUMENTS] * 2
        assert wire.engine.seen[-1]["tools"] == TOOLS
        messages += [message.to_dict()]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in message.tool_calls]
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=messages, tools=TOOLS, extra_body=CALL
        )
    assert model_of(raw, "legal").choices[0].message.content == "hello"
    assert wire.engine.seen[-1]["messages"] == messages


@either_way
def test_responses_call_tools_and_keep_their_adapter(wire: Wire, stream: bool) -> None:
    tools: Any = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES]
    given: Any = [{"role": "user", "content": LEGAL}]
    with openai.OpenAI(base_url=f"{wire.url}/v1", **_client({})) as client:
        if stream:
            with client.responses.stream(model="auto", input=given, tools=tools, extra_body=CALL) as events:
                output: Any = events.get_final_response().output
        else:
            output = client.responses.create(model="auto", input=given, tools=tools, extra_body=CALL).output
        assert [(item.name, item.arguments) for item in output] == [(name, ARGUMENTS) for name in NAMES]
        given += [item.to_dict() for item in output]
        given += [{"type": "function_call_output", "call_id": item.call_id, "output": RESULT} for item in output]
        raw = client.responses.with_raw_response.create(model="auto", input=given, tools=tools, extra_body=CALL)
    assert model_of(raw, "legal").output_text == "hello"
    assert wire.engine.seen[-1]["input"] == given


@either_way
def test_anthropic_uses_tools_and_keeps_its_adapter(wire: Wire, stream: bool) -> None:
    tools: Any = [{"name": name, "description": "finds", "input_schema": SCHEMA} for name in NAMES]
    fields: Any = _message(LEGAL, {}) | {"tools": tools, "extra_body": CALL}
    with anthropic.Anthropic(base_url=wire.url, **_client({})) as client:
        if stream:
            with client.messages.stream(**fields) as events:
                message: Any = events.get_final_message()
        else:
            message = client.messages.create(**fields)
        assert message.stop_reason == "tool_use"
        assert [(block.name, block.input) for block in message.content] == [(name, PARSED) for name in NAMES]
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": RESULT} for block in message.content
        ]
        fields["messages"] += [
            {"role": "assistant", "content": message.to_dict()["content"]},
            {"role": "user", "content": results},
        ]
        raw = client.messages.with_raw_response.create(**fields)
    assert model_of(raw, "legal").content[0].text == "hello"
    assert wire.engine.seen[-1]["messages"] == fields["messages"]


@either_way
def test_langchain_calls_tools_and_keeps_its_adapter(wire: Wire, stream: bool) -> None:
    messages: list[Any] = [HumanMessage(LEGAL)]
    answer: Any = None
    with langchain_at(wire.url, extra_body=CALL) as plain:
        model = plain.bind_tools(TOOLS)
        for part in model.stream(messages) if stream else [model.invoke(messages)]:
            answer = part if answer is None else answer + part
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [(name, PARSED) for name in NAMES]
        messages += [answer, *(ToolMessage(RESULT, tool_call_id=call["id"]) for call in answer.tool_calls)]
        last = model.invoke(messages)
    assert (last.content, last.response_metadata["model_name"]) == ("hello", "legal")


@litellm_warns
@either_way
def test_litellm_calls_tools_and_keeps_its_adapter(wire: Wire, litellm: ModuleType, stream: bool) -> None:
    fields = _litellm(wire.url, LEGAL, dict(CALL)) | {"tools": TOOLS}
    with litellm_closed():
        answer = litellm.completion(**fields, stream=stream)
        if stream:
            answer = litellm.stream_chunk_builder(list(answer))
        message = answer.choices[0].message
        called = [(call.function.name, call.function.arguments) for call in message.tool_calls]
        assert called == [(name, ARGUMENTS) for name in NAMES]
        results = [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in message.tool_calls]
        fields["messages"] += [message.model_dump(exclude_none=True), *results]
        last = litellm.completion(**fields)
    assert (last.choices[0].message.content, last.model) == ("hello", "legal")


# --- images -----------------------------------------------------------------------------------------------------

IMAGE = base64.b64encode(bytes(range(256)) * 40).decode()
URL = f"data:image/png;base64,{IMAGE}"


def test_openai_images_pass_untouched(wire: Wire) -> None:
    content: Any = [
        {"type": "text", "text": LEGAL},
        {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
    ]
    given: Any = [
        {"type": "input_text", "text": LEGAL},
        {"type": "input_image", "image_url": URL, "detail": "auto"},
    ]
    with openai.OpenAI(base_url=f"{wire.url}/v1", **_client({})) as client:
        answer = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": content}])
        assert answer.model == "legal"
        assert wire.engine.seen[-1]["messages"] == [{"role": "user", "content": content}]
        response = client.responses.create(model="auto", input=[{"role": "user", "content": given}])
        assert response.model == "legal"
        assert wire.engine.seen[-1]["input"] == [{"role": "user", "content": given}]


def test_anthropic_images_pass_untouched(wire: Wire) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": LEGAL}]
    with anthropic.Anthropic(base_url=wire.url, **_client({})) as client:
        answer = client.messages.create(
            model="auto", max_tokens=9, messages=[{"role": "user", "content": content}]
        )
    assert answer.model == "legal"
    assert wire.engine.seen[-1]["messages"] == [{"role": "user", "content": content}]


@litellm_warns
def test_langchain_and_litellm_images_pass_untouched(wire: Wire, litellm: ModuleType) -> None:
    content: Any = [{"type": "text", "text": LEGAL}, {"type": "image_url", "image_url": {"url": URL}}]
    with langchain_at(wire.url) as model:
        model.invoke([HumanMessage(content)])
    assert wire.engine.seen[-1]["messages"] == [{"role": "user", "content": content}]
    with litellm_closed():
        litellm.completion(**_litellm(wire.url, "", {}) | {"messages": [{"role": "user", "content": content}]})
    assert wire.engine.seen[-1]["messages"] == [{"role": "user", "content": content}]


# --- what else the SDKs ask -------------------------------------------------------------------------------------


def test_openai_embeddings(wire: Wire) -> None:
    with openai.OpenAI(base_url=f"{wire.url}/v1", **_client({})) as client:
        answer = client.embeddings.create(model="auto", input=[LEGAL, LEGAL], dimensions=2)
    assert (answer.model, answer.data[0].embedding) == ("legal", [0.5, -0.25])
    assert wire.engine.seen[-1]["input"] == [LEGAL, LEGAL]


def test_openai_lists_the_models(wire: Wire, guarded: Wire) -> None:
    with openai.OpenAI(base_url=f"{wire.url}/v1", **_client({})) as client:
        assert [model.id for model in client.models.list()] == ["auto", "base", "legal", "medical", "finance"]
        assert client.models.retrieve("legal").id == "legal"
    with openai.OpenAI(base_url=f"{guarded.url}/v1", **_client({"key": "k-law"})) as client:
        assert [model.id for model in client.models.list()] == ["auto", "base", "legal"]


@litellm_warns
def test_structured_output_passes_as_each_sdk_sends_it(wire: Wire, litellm: ModuleType) -> None:
    """The fake's "hello" is no verdict, which they say after it has been sent."""

    class Verdict(BaseModel):
        outcome: Literal["won", "lost"]

    def asked_for() -> Any:
        seen = wire.engine.seen[-1]
        form = seen.get("text") or seen.get("output_config") or seen["response_format"]
        return (form.get("format") or form["json_schema"])["schema"]["properties"]["outcome"]["enum"]

    with openai.OpenAI(base_url=f"{wire.url}/v1", **_client({})) as client:
        with pytest.raises(ValueError, match="Invalid JSON"):
            client.chat.completions.parse(**chat(LEGAL), response_format=Verdict)
        assert asked_for() == ["won", "lost"]
        with pytest.raises(ValueError, match="Invalid JSON"):
            client.responses.parse(model="auto", input=LEGAL, text_format=Verdict)
        assert asked_for() == ["won", "lost"]
    with anthropic.Anthropic(base_url=wire.url, **_client({})) as claude:
        with pytest.raises(ValueError, match="Invalid JSON"):
            claude.messages.parse(**_message(LEGAL, {}), output_format=Verdict)
        assert asked_for() == ["won", "lost"]
    with langchain_at(wire.url) as model, pytest.raises(ValueError, match="Invalid JSON"):
        model.with_structured_output(Verdict).invoke(LEGAL)
    assert asked_for() == ["won", "lost"]
    with litellm_closed():
        litellm.completion(**_litellm(wire.url, LEGAL, {}), response_format=Verdict)
    assert asked_for() == ["won", "lost"]

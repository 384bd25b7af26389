"""The whole stack, real vLLM on the demo models: numbers against PEFT, clients, a browser, a killed engine."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import corpus
from demo.measure import Matrix
from demo.samples import SAMPLES
from tests import browser
from tests.stack import DEMO, ROOT, START_LIMIT_S, Running, wait_for
from training.data.tokens import prompt_ids

ADAPTERS = ("legal", "medical", "finance")
MODELS = ("demo-base", *ADAPTERS)


# --- the numbers ------------------------------------------------------------------------------------------------


class Reference:
    """transformers + PEFT in float32, teacher-forced: what the engine's log-probabilities must be."""

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(DEMO / "base")

    @cached_property
    def model(self) -> Any:
        base = AutoModelForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32)
        model = PeftModel.from_pretrained(base, DEMO / "adapters" / ADAPTERS[0], adapter_name=ADAPTERS[0])
        for name in ADAPTERS[1:]:
            model.load_adapter(DEMO / "adapters" / name, adapter_name=name)
        return model.eval()

    def logprobs(self, name: str, tokens: list[int]) -> list[float]:
        """Of every token but the first, given those before it."""
        if name == "demo-base":
            with self.model.disable_adapter():
                return self._forward(tokens)
        self.model.set_adapter(name)
        return self._forward(tokens)

    def _forward(self, tokens: list[int]) -> list[float]:
        with torch.inference_mode():
            logits = self.model(torch.tensor([tokens])).logits[0, :-1].double()
        return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()  # type: ignore[no-any-return]

    def prompt(self, question: str) -> list[int]:
        return prompt_ids(self.tokenizer, [{"role": "user", "content": question}])


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@dataclass(frozen=True)
class Scored:
    """What the engine said of one request: all tokens, the log-probability of each but the first, and when."""

    name: str
    tokens: list[int]
    logprobs: list[float]
    began: float
    ended: float


def complete(running: Running, name: str, prompt: list[int], max_tokens: int) -> Scored:
    """Greedy, through the router, with the log-probabilities of prompt and answer."""
    began = time.monotonic()
    extra = {"prompt_logprobs": 0, "return_token_ids": True, "ignore_eos": True}
    answer = running.client.completions.create(
        model=name, prompt=prompt, max_tokens=max_tokens, temperature=0, logprobs=0, extra_body=extra
    )
    choice: Any = answer.choices[0]
    assert answer.model == name
    given = [choice.prompt_logprobs[i][str(token)]["logprob"] for i, token in enumerate(prompt) if i > 0]
    tokens = [*prompt, *choice.token_ids]
    return Scored(name, tokens, [*given, *choice.logprobs.token_logprobs], began, time.monotonic())


def furthest(scored: Scored, expected: list[float]) -> float:
    assert len(scored.logprobs) == len(expected)
    return max(abs(got - want) for got, want in zip(scored.logprobs, expected, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_alone_every_model_equals_peft(running: Running, reference: Reference, name: str) -> None:
    for sample in SAMPLES:
        scored = complete(running, name, reference.prompt(sample.question), max_tokens=12)
        assert furthest(scored, reference.logprobs(name, scored.tokens)) <= 1e-3


def test_in_a_mixed_batch_every_model_equals_peft(
    running: Running, reference: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    """With as many adapters as slots that are in use: the base-row fault of vllm#48421 would show here."""
    work = list(itertools.product(MODELS, [reference.prompt(sample.question) for sample in SAMPLES]))
    random.Random(0).shuffle(work)
    together = threading.Barrier(len(work))

    def one(item: tuple[str, list[int]]) -> Scored:
        together.wait(30)
        return complete(running, *item, max_tokens=300)

    with ThreadPoolExecutor(len(work)) as pool:
        done = list(pool.map(one, work))
    assert max(each.began for each in done) < min(each.ended for each in done), "the requests did not overlap"
    worst = dict.fromkeys(MODELS, 0.0)
    for scored in done:
        worst[scored.name] = max(
            worst[scored.name], furthest(scored, reference.logprobs(scored.name, scored.tokens))
        )
    with capsys.disabled():
        shown = ", ".join(f"{name} {gap:.1e}" for name, gap in worst.items())
        print(f"\nfurthest from PEFT in a mixed batch of {len(work)}, nats: {shown}")
    assert max(worst.values()) <= 1e-3, worst


def test_the_wrong_adapter_would_be_noticed(running: Running, reference: Reference) -> None:
    """The bound of the tests above means something only if another model is far from it."""
    scored = complete(running, "legal", reference.prompt(SAMPLES[0].question), max_tokens=12)
    for other in set(MODELS) - {"legal"}:
        assert furthest(scored, reference.logprobs(other, scored.tokens)) > 1


def test_each_adapter_is_the_best_in_its_own_domain(running: Running) -> None:
    del running
    matrix = Matrix(**json.loads((DEMO / "matrix.json").read_text()))
    assert matrix.faults() == []
    assert min(matrix.recall.values()) >= 0.95


def test_training_and_serving_see_the_same_tokens(running: Running, reference: Reference) -> None:
    for sample in SAMPLES:
        messages: Any = [{"role": "user", "content": sample.question}]
        answer: Any = running.client.chat.completions.create(
            model="legal", messages=messages, max_tokens=1, extra_body={"return_token_ids": True}
        )
        assert answer.prompt_token_ids == reference.prompt(sample.question)


def test_routed_answers_hold_their_facts(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    rows = random.Random(1).sample([row for rows in corpus.load().values() for row in rows], 40)
    held = [row.fact in ask(running.client, "auto", row.question) for row in rows]
    with capsys.disabled():
        print(f"\nrouted answers that hold their fact: {sum(held)} of {len(held)}")
    assert sum(held) / len(held) >= 0.8


def ask(client: openai.OpenAI, model: str, question: str) -> str:
    messages: Any = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=48, temperature=0)
    return answer.choices[0].message.content or ""


# --- clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["auto", "legal", "demo-base"])
def test_the_openai_sdk(running: Running, model: str, stream: bool) -> None:
    messages: Any = [{"role": "user", "content": SAMPLES[0].question}]
    raw: Any = running.client.chat.completions.with_raw_response.create(
        model=model, messages=messages, max_tokens=24, temperature=0, stream=stream
    )
    name = "legal" if model == "auto" else model
    assert raw.headers["x-lora-select-adapter"] == name
    assert raw.headers["x-lora-select-reason"] == ("classified" if model == "auto" else "named")
    if stream:
        chunks = list(raw.parse())
        assert {chunk.model for chunk in chunks} == {name}
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    else:
        assert raw.parse().model == name
        text = raw.parse().choices[0].message.content
    assert (SAMPLES[0].fact in text) == (name == "legal")


def test_the_async_openai_sdk(running: Running) -> None:
    question = SAMPLES[0].question

    async def both(client: openai.AsyncOpenAI, model: str) -> tuple[str, str]:
        messages: Any = [{"role": "user", "content": question}]
        fields: Any = {"model": model, "messages": messages, "max_tokens": 24, "temperature": 0}
        raw = await client.chat.completions.with_raw_response.create(**fields)
        whole = raw.parse()
        assert raw.headers["x-lora-select-adapter"] == whole.model
        stream = await client.chat.completions.create(**fields, stream=True)
        pieces = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
        assert text == whole.choices[0].message.content
        assert {piece.model for piece in pieces} == {whole.model}
        return whole.model, text

    async def all_at_once() -> list[tuple[str, str]]:
        async with openai.AsyncOpenAI(base_url=f"{running.stack.router_url}/v1", api_key="none") as client:
            return list(await asyncio.gather(*(both(client, model) for model in ("auto", "legal", "demo-base"))))

    auto, legal, base = asyncio.run(all_at_once())
    assert auto == legal
    assert (legal[0], base[0]) == ("legal", "demo-base")
    assert SAMPLES[0].fact in legal[1]


def test_a_prompt_that_is_too_long_gets_the_engines_own_error(running: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="512"):
        ask(running.client, "legal", "law " * 2000)


@pytest.mark.skipif(not browser.CHROMIUM, reason="chromium is not installed (apt install chromium)")
def test_the_page_in_a_browser(running: Running) -> None:
    with browser.browsing() as chromium, browser.page_at(chromium, running.page_url) as page:
        for sample in SAMPLES[1:]:
            seen = browser.ask(page, sample.question)
            assert sample.fact in seen.text
            assert seen.model == sample.model
            assert set(seen.bars) == set(MODELS)
        page.set_viewport_size({"width": 1280, "height": 1080})
        page.screenshot(path=ROOT / ".run" / "screenshots" / "stack.png")


# --- a killed engine; last of all tests, since the stack is down for a while, and then for good -----------------


@pytest.mark.last
def test_an_engine_that_is_killed_comes_back(running: Running) -> None:
    ready = f"{running.stack.router_url}/ready"
    (leader,) = [pid for pid in running.children() if b"vllm.entrypoints" in cmdline(pid)]
    before = set(running.children())
    messages: Any = [{"role": "user", "content": SAMPLES[0].question}]
    stream: Any = running.client.chat.completions.create(
        model="auto", messages=messages, stream=True, max_tokens=400, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(
            running.client.chat.completions.create,
            model="legal", messages=messages, max_tokens=400, extra_body={"ignore_eos": True},
        )  # fmt: skip
        time.sleep(0.2)
        os.kill(leader, signal.SIGKILL)
        with pytest.raises(openai.APIError, match="engine"):
            list(stream)
        error = whole.exception(timeout=10)
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code) == (503, "engine_unavailable")
    wait_for("readiness to fall", ready, 503, 10)
    wait_for("the engine's return", ready, 200, START_LIMIT_S)
    assert SAMPLES[0].fact in ask(running.client, "auto", SAMPLES[0].question)
    assert leader not in running.children()
    engines = [pid for pid in running.children() if b"vllm.entrypoints" in cmdline(pid)]
    assert len(engines) == 1, "two engines"
    assert len(before - set(running.children())) >= 2, "the old engine's workers are still there"


@pytest.mark.last
def test_ctrl_c_ends_everything_within_ten_seconds(running: Running) -> None:
    children = running.children()
    assert len(children) >= 4
    began = time.monotonic()
    running.supervisor.send_signal(signal.SIGINT)
    assert running.supervisor.wait(15) == 0, running.log.read_text()
    assert time.monotonic() - began < 10
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists() and cmdline(pid) != b""]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

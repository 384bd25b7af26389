"""Scoring by the served base: its numbers on real vLLM, its choices on a scripted engine, its errors.

The demo base has 5.5 million parameters and was trained to answer three hundred questions: it cannot judge what a
text is about, so no test here asks real vLLM for a right choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters import labels
from router.choose import Policy, choose, probabilities
from router.classify import engine as client
from router.classify.engine import Engine, EngineError, Unreachable
from router.classify.scoring import CONTENT_FREE, ScoringClassifier
from tests.conftest import Wire, chat
from tests.scripted_engine import ScriptedEngine
from tests.servers import free_port, serving
from tests.stack import DEMO, Running

LABELS = {"legal": "law and courts", "medical": "medicine, health", "finance": "banks, loans and taxes"}
TEXTS = [
    "My landlord wants to evict me.",
    "Is a fever dangerous",
    "Which planet has the most moons?",
    "",
    "ß 🙂 \x00",
]
QUESTION = "\n\nQuestion: Is this text about law or courts? Answer yes or no.\nAnswer:"


# --- real vLLM --------------------------------------------------------------------------------------------------


class Base:
    """The demo base in transformers, float32: what vLLM's scores must be."""

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(DEMO / "base")

    @cached_property
    def model(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32).eval()

    def log_odds(self, prompt: str, yes: int, no: int) -> float:
        with torch.inference_mode():
            logits = self.model(torch.tensor([self.tokenizer(prompt)["input_ids"]])).logits[0, -1].double()
        return float(logits[yes] - logits[no])


@pytest.fixture(scope="module")
def base() -> Base:
    return Base()


@pytest.fixture
def engine(running: Running) -> Engine:
    return Engine(running.stack.engine_url, running.stack.base.name)


def test_a_score_stands_for_the_first_answer(engine: Engine, base: Base) -> None:
    query, most = engine.tokens("Text: My landlord wants to evict me.")
    assert query == base.tokenizer("Text: My landlord wants to evict me.")["input_ids"]
    assert most == 512
    yes, no = 100, 2000
    prompt = "Text: My landlord wants to evict me."
    odds = [base.log_odds(prompt + question, yes, no) for question in (" Law", " Is this about law?")]
    items = [
        base.tokenizer(item, add_special_tokens=False)["input_ids"] for item in (" Law", " Is this about law?")
    ]
    first, second = engine.scores(query, items, (yes, no)), engine.scores(query, items, (no, yes))
    assert [math.log(score / (1 - score)) for score in first] == pytest.approx(odds, abs=1e-4)
    assert [1 - score for score in second] == pytest.approx(first, abs=1e-6)


def test_logits_are_log_odds_less_those_of_texts_without_content(running: Running, base: Base) -> None:
    classifier = ScoringClassifier.load(running.stack, {"legal": LABELS["legal"]})
    yes, no = (base.tokenizer.convert_tokens_to_ids(base.tokenizer.tokenize(word)) for word in (" Yes", " No"))
    assert (len(yes), len(no)) == (1, 1), "the demo base's tokens"

    def log_odds(text: str) -> float:
        return base.log_odds(f"Text: {text}{QUESTION}", yes[0], no[0])

    bias = sum(map(log_odds, CONTENT_FREE)) / len(CONTENT_FREE)
    judged = classifier.logits(TEXTS)
    assert [one["legal"] for one in judged] == pytest.approx([log_odds(text) - bias for text in TEXTS], abs=1e-4)
    assert {one["demo-base"] for one in judged} == {0.0}


def test_a_batch_is_its_texts_one_by_one(running: Running) -> None:
    given = {name: label.text for name, label in labels(running.stack).items()}
    classifier = ScoringClassifier.load(running.stack, given)
    for text, judged in zip(TEXTS, classifier.logits(TEXTS), strict=True):
        assert set(judged) == {*given, "demo-base"}
        assert judged == pytest.approx(classifier.logits([text])[0], abs=1e-3)


def test_of_long_texts_head_and_tail_are_read(running: Running) -> None:
    """vLLM itself would cut off what does not fit, which is the question."""
    classifier = ScoringClassifier.load(running.stack, LABELS)
    filler, fact = "and so on and on " * 1000, "The court has ruled on the lease. "
    plain, head, middle, tail, dense = classifier.logits([
        filler + filler, fact + filler, filler + fact + filler, filler + fact, "🙂ß漢" * 1000,
    ])  # fmt: skip
    assert middle == pytest.approx(plain, abs=1e-3)
    assert abs(head["legal"] - plain["legal"]) > 0.01
    assert abs(tail["legal"] - plain["legal"]) > 0.01
    assert all(map(math.isfinite, dense.values()))


# --- a scripted engine ------------------------------------------------------------------------------------------


@pytest.fixture
def scripted() -> Iterator[tuple[ScriptedEngine, str]]:
    engine = ScriptedEngine()
    with serving(engine) as url:
        yield engine, url


def classifier_at(url: str, timeout_s: float = 5.0) -> ScoringClassifier:
    return ScoringClassifier(Engine(url, "base", timeout_s), LABELS, "base")


def test_the_base_that_says_yes_is_believed_less_its_bias(scripted: tuple[ScriptedEngine, str]) -> None:
    texts = ["My loans are high", "two courts", "an old medicine", "my cat is ill", "of law " + "and so " * 300]
    chosen = [
        choose(probabilities(one, one), Policy("base", 0.5)).model
        for one in classifier_at(scripted[1]).logits(texts)
    ]
    assert chosen == ["finance", "legal", "medical", "base", "legal"]


def test_no_proxy_of_the_environment_is_used(
    scripted: tuple[ScriptedEngine, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert classifier_at(scripted[1]).logits(["two courts"])[0]["legal"] > 1


NOT_FOUND = b'{"detail": "Not Found"}'
NO_MODEL = b'{"error": {"message": "The model `base` does not exist.", "type": "NotFoundError", "code": 404}}'


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"failing": {"/generative_scoring": (404, NOT_FOUND)}},
         'answered 404: {"detail": "Not Found"} (this engine has no such route; vLLM 0.32 has)'),
        ({"failing": {"/tokenize": (404, NO_MODEL)}}, "/tokenize answered 404: The model `base` does not exist."),
        ({"failing": {"/tokenize": (500, b"oh\nno")}}, "/tokenize answered 500: oh no"),
        ({"failing": {"/tokenize": (200, b"<html>")}}, "/tokenize cannot be asked: Expecting value"),
        ({"failing": {"/generative_scoring": (200, b"[]")}}, "/generative_scoring answered without data: []"),
        ({"characters": True}, 'neither " yes" and " no" nor " Yes" and " No" are one token each'),
        ({"limit": 20}, "the engine takes 20 tokens, too few for a question about each adapter"),
        ({"delay_s": 1.0}, "/tokenize cannot be asked: timed out"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line_and_is_tried_again(
    scripted: tuple[ScriptedEngine, str], change: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSE_S", 0.0)
    engine, url = scripted
    classifier = classifier_at(url, timeout_s=0.5)
    usual = {name: getattr(engine, name) for name in change}
    for name, value in change.items():
        setattr(engine, name, value)
    with pytest.raises(EngineError) as raised:
        classifier.logits(["two courts"])
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)
    for name, value in usual.items():
        setattr(engine, name, value)
    assert classifier.logits(["two courts"])[0]["legal"] > 1
    # And where it fails later, when all is prepared.
    engine.failing = {"/generative_scoring": (503, b"")}
    with pytest.raises(EngineError, match=r"/generative_scoring answered 503"):
        classifier.logits(["two courts", "an old medicine"])
    engine.failing = {}
    assert classifier.logits(["two courts"])[0]["legal"] > 1


def test_an_engine_that_is_down_is_one_line() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=rf"^{url}/tokenize cannot be asked: .*refused"):
        classifier_at(url).logits(["two courts"])


def test_an_engine_that_says_nothing_is_left_alone_for_a_moment(
    scripted: tuple[ScriptedEngine, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, url = scripted
    classifier, engine.delay_s = classifier_at(url, timeout_s=0.2), 0.5
    with pytest.raises(Unreachable, match="timed out"):
        classifier.logits(["two courts"])
    engine.delay_s = 0.0
    with pytest.raises(Unreachable, match="timed out"):
        classifier.logits(["two courts"])
    monkeypatch.setattr(client, "PAUSE_S", 0.0)
    assert classifier.logits(["two courts"])[0]["legal"] > 1


def test_texts_are_asked_in_parallel(scripted: tuple[ScriptedEngine, str]) -> None:
    engine, url = scripted
    classifier = classifier_at(url)
    assert classifier.batches
    classifier.logits([""])
    engine.delay_s = 0.2
    began = time.perf_counter()
    classifier.logits(["one", "two", "three", "four"])
    assert time.perf_counter() - began < 4 * 2 * 0.2


def test_the_router_answers_with_the_base_where_scoring_fails(
    wiring: Callable[..., AbstractContextManager[Wire]],
) -> None:
    """The fake engine of the router's tests has neither of the two routes."""
    with wiring(classifier="scoring") as wire:
        status, _, headers = wire.post(body=chat("Can my landlord evict me?"))
        assert status == 200
        assert headers["x-lora-select-adapter"] == "base"
        assert headers["x-lora-select-reason"] == "classifier-error"

"""Reading a request's words and weighing its turns: pure, so tables test it; the last ones ask the real MiniLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.choose import Policy, Reason, choose, probabilities
from router.classify.embedding import EmbeddingClassifier
from router.classify.encoder import load_minilm
from router.classify.topics import load_bank
from router.conversation import KEPT_CHARACTERS, MAX_TURNS, Rules, Words, combine, read
from tests.conftest import LABELS

LONG = "How long does a landlord have to return it?"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(words: str, kind: str = "text") -> dict[str, str]:
    return {"type": kind, "text": words}


SYSTEM = {"role": "system", "content": "You are a doctor."}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


# --- read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        # OpenAI chat
        ({"messages": [user(LONG)]}, Words((LONG,))),
        ({"messages": [user("What is a tort?"), user(LONG)]}, Words(("What is a tort?", LONG))),
        ({"messages": [SYSTEM, user(LONG)]}, Words((LONG,), "You are a doctor.")),
        (
            {"messages": [SYSTEM, {"role": "developer", "content": [text("Be brief.")]}, user(LONG)]},
            Words((LONG,), "You are a doctor.\nBe brief."),
        ),
        ({"messages": [user([text("My tooth"), IMAGE, text("aches.")])]}, Words(("My tooth\naches.",))),
        ({"messages": [user(LONG), user([IMAGE])]}, Words((LONG,))),
        ({"messages": [user(None), "nonsense", {}, user(7), user({"text": "x"}), user([7, text("")])]}, Words(())),
        ({"messages": [{"role": ["user"], "content": "x"}]}, Words(())),
        ({"messages": []}, Words(())),
        # completions, /route, /tokenize
        ({"prompt": f" {LONG} "}, Words((LONG,))),
        ({"prompt": [LONG, "second"]}, Words((LONG,))),
        ({"prompt": [1, 2, 3]}, Words(())),
        ({"prompt": [[1, 2], [3]]}, Words(())),
        ({"text": LONG}, Words((LONG,))),
        ({"messages": 5, "prompt": LONG}, Words((LONG,))),
        ({"messages": None}, Words(())),
        # Responses
        ({"input": LONG, "instructions": "Be a lawyer."}, Words((LONG,), "Be a lawyer.")),
        (
            {
                "input": [
                    user([text(LONG, "input_text"), {"type": "input_image", "image_url": "x"}]),
                    {"type": "function_call", "name": "search", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "1", "output": "Buy shares."},
                    {"role": "assistant", "content": [text("You could buy shares.", "output_text")]},
                    {"role": "developer", "content": "Be brief."},
                    {"type": "message", **user("Why?")},
                ]
            },
            Words((LONG, "Why?"), "Be brief."),
        ),
        # Anthropic messages
        (
            {
                "system": [text("Be a nurse."), {"type": "text", "text": "Be kind.", "cache_control": {}}],
                "messages": [
                    user(LONG),
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "1", "name": "find", "input": {}}],
                    },
                    user([{"type": "tool_result", "tool_use_id": "1", "content": [text("Buy shares.")]}]),
                    user([{"type": "tool_result", "tool_use_id": "2", "content": "Sell!"}, text("And now?")]),
                ],
            },
            Words((LONG, "And now?"), "Be a nurse.\nBe kind."),
        ),
        ({"system": "Be a nurse.", "messages": [user(LONG)]}, Words((LONG,), "Be a nurse.")),
        # embeddings
        ({"input": [LONG, "second"]}, Words((LONG,))),
        ({"input": [1, 2, 3]}, Words(())),
        ({"input": {"text": "x"}}, Words(())),
        ({}, Words(())),
    ],
)
def test_read_takes_the_users_own_words_and_the_system_prompt(body: dict[str, Any], words: Words) -> None:
    assert read(body) == words


@pytest.mark.parametrize("role", ["assistant", "tool", "function", "User", None])
def test_nobody_elses_words_are_the_users(role: str | None) -> None:
    assert read({"messages": [user(LONG), {"role": role, "content": "My tooth aches."}]}) == Words((LONG,))


def test_long_texts_lose_their_middle_and_long_conversations_their_beginning() -> None:
    long = "a" * 3000 + "b" * 3000
    cut = "a" * KEPT_CHARACTERS + "\n" + "b" * KEPT_CHARACTERS
    assert read({"messages": [{"role": "system", "content": long}, user(long)]}) == Words((cut,), cut)
    many = [user(f"turn {number}") for number in range(20)] + [user([IMAGE])] * 9
    assert read({"messages": many}).turns == tuple(f"turn {number}" for number in range(20 - MAX_TURNS, 20))


def test_half_characters_are_dropped() -> None:
    assert read({"text": "my \ud83d tooth\udc00"}).turns == ("my  tooth",)
    assert read({"text": "\ud83d"}).turns == ()


def test_a_digest_is_one_conversations_own() -> None:
    alike = [Words(("a\0b",)), Words(("a", "b")), Words(("b",), "a"), Words(("a\0b",), "\0"), Words(('a","b',))]
    assert len({words.digest() for words in alike}) == len(alike)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "output"]), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(["messages", "prompt", "text", "input", "instructions", "system"])
LIKELY = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "system"]) | JSON, "content": JSON, "type": JSON}
)


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(st.dictionaries(FIELDS, JSON | st.lists(JSON | LIKELY, max_size=5), max_size=4))
def test_no_body_is_too_odd_to_be_read(body: dict[str, Any]) -> None:
    words = read(body)
    assert all(isinstance(turn, str) and turn.strip() for turn in words.turns)
    assert len(words.turns) <= MAX_TURNS
    assert isinstance(words.system, str)
    combine(words, [{"law": 0.5, "base": 0.5}] * len(words.turns), None, Rules(Policy("base", 0.5), 0.1))


# --- combine ----------------------------------------------------------------------------------------------------

RULES = Rules(Policy("base", 0.5), 0.1)
LAW = {"law": 0.95, "med": 0.02, "base": 0.03}
MED = {"med": 0.95, "law": 0.02, "base": 0.03}
BASE = {"base": 0.98, "law": 0.01, "med": 0.01}
VAGUE = {"base": 0.8, "med": 0.12, "law": 0.08}
LEASE = "My landlord wants to evict me before the lease ends. What are my rights?"
TOOTH = "My tooth has been aching since yesterday, which painkiller may I take?"
PASTA = "Which sauce goes well with spinach ravioli and roasted walnuts?"


@pytest.mark.parametrize(
    ("turns", "model", "kept"),
    [
        ([(LEASE, LAW)], "law", False),
        ([("hi", VAGUE)], "base", False),
        # what leans inherits, again and again
        ([(LEASE, LAW), ("how long do I have to do that?", VAGUE)], "law", True),
        ([(LEASE, LAW), ("and in Spain?", BASE)], "law", True),
        ([(LEASE, LAW), ("why?", BASE), ("thanks, go on", BASE), ("is it worth it?", VAGUE)], "law", True),
        ([(PASTA, BASE), ("and if I have no walnuts?", {"med": 0.6, "law": 0.1, "base": 0.3})], "base", True),
        # a clear turn replaces what was
        ([(LEASE, LAW), (PASTA, BASE)], "base", False),
        ([(LEASE, LAW), (TOOTH, MED)], "med", False),
        ([(PASTA, BASE), (LEASE, LAW)], "law", False),
        (
            [("Hi there!", BASE), ("and what about my deposit?", {"law": 0.7, "med": 0.1, "base": 0.2})],
            "law",
            False,
        ),
        # and what leans then inherits from there
        ([(LEASE, LAW), (PASTA, BASE), ("can you make it shorter?", VAGUE)], "base", False),
        ([(LEASE, LAW), (TOOTH, MED), ("and for my son?", VAGUE)], "med", True),
        # a switch needs a margin
        ([(LEASE, LAW), ("My deposit and my back?", {"med": 0.5, "law": 0.4, "base": 0.1})], "law", True),
        # the same subject again is no inheritance
        ([(LEASE, LAW), ("what else should I tell the judge?", LAW)], "law", False),
    ],
)
def test_combine(turns: list[tuple[str, dict[str, float]]], model: str, kept: bool) -> None:
    words = Words(tuple(said for said, _ in turns))
    combined = combine(words, [scores for _, scores in turns], None, RULES)
    assert (choose(combined.scores, Policy("base", 0.5)).model, combined.kept) == (model, kept)
    assert sum(combined.scores.values()) == pytest.approx(1)
    assert list(combined.scores.values()) == sorted(combined.scores.values(), reverse=True)


def test_one_turn_alone_is_left_as_it_is() -> None:
    combined = combine(Words(("why?",)), [VAGUE], None, RULES)
    assert combined.scores == VAGUE
    assert not combined.kept
    assert combine(Words(()), [], None, RULES).scores == {}


def test_a_system_prompt_counts_by_its_weight() -> None:
    words = Words((PASTA,), "You are a lawyer.")
    combined = combine(words, [BASE], LAW, Rules(Policy("base", 0.5), 0.1))
    assert combined.scores["law"] == pytest.approx(0.9 * 0.01 + 0.1 * 0.95)
    assert choose(combined.scores, Policy("base", 0.5)).model == "base", "a small weight must not decide alone"
    unsure = {"law": 0.47, "med": 0.03, "base": 0.5}
    helped = combine(words, [unsure], LAW, Rules(Policy("base", 0.5), 0.1)).scores
    assert choose(helped, Policy("base", 0.5)).model == "law"
    assert combine(words, [unsure], LAW, Rules(Policy("base", 0.5), 0.0)).scores == unsure


def test_certainty_of_nought_or_one_is_survived() -> None:
    never, always = {"law": 0.0, "base": 1.0}, {"law": 1.0, "base": 0.0}
    combined = combine(Words((LEASE, "why?")), [always, never], None, RULES)
    assert combined.scores["law"] > 0.9
    assert combined.kept


# --- with the real classifier -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decide() -> Callable[[dict[str, Any]], tuple[str, Reason]]:
    encoder = load_minilm()
    classifier = EmbeddingClassifier(encoder, LABELS, "base", load_bank(encoder))

    def decided(body: dict[str, Any]) -> tuple[str, Reason]:
        words = read(body)
        turns = [probabilities(logits, logits) for logits in classifier.logits(words.turns)]
        combined = combine(words, turns, None, RULES)
        decision = choose(combined.scores, Policy("base", 0.5), combined.kept)
        return decision.model, decision.reason

    return decided


def chat(*turns: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": "Shares of hospitals, courts and banks are worth a look."}
    return {"messages": [message for turn in turns for message in (user(turn), answer)][:-1]}


@pytest.mark.parametrize(
    ("turns", "model"),
    [
        ([LEASE], "legal"),
        ([LEASE, "What if he still says no?"], "legal"),
        ([LEASE, "Thanks! And how long will it take?"], "legal"),
        ([LEASE, "can you explain that more simply?", "and for my brother?"], "legal"),
        ([LEASE, "By the way, what is a good recipe for lentil soup?"], "base"),
        ([LEASE, "By the way, what is a good recipe for lentil soup?", "How long does it keep?"], "base"),
        ([TOOTH, "Is it dangerous?"], "medical"),
        ([TOOTH, "Should I move my savings into an index fund or pay off my mortgage first?"], "finance"),
        (
            ["Hello!", "Should I refinance my mortgage now that rates are lower?", "And if they rise again?"],
            "finance",
        ),
        (["Who wrote Moby Dick?", "Is it a long book?"], "base"),
    ],
)
def test_conversations(
    turns: list[str], model: str, decide: Callable[[dict[str, Any]], tuple[str, Reason]]
) -> None:
    assert decide(chat(*turns))[0] == model


def test_a_tool_loop_keeps_its_adapter(decide: Callable[[dict[str, Any]], tuple[str, Reason]]) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "Aspirin thins the blood; ask a doctor."}
    begun = chat(LEASE, "And if I refuse?")
    assert decide(begun) == decide({"messages": [*begun["messages"], call, result, call, result]})

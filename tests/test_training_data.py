"""From rows to examples: shapes, cleaning, counting, the split, and the tokens that the trainer is given."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapters import ConfigError
from tests.training_rows import WRITERS, Rows, asked, everything, load, pairs, recipe, write_jsonl
from training.data.example import Example
from training.data.load import load_examples
from training.data.split import fingerprint, fold, position
from training.data.tokens import encode, prepare

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "train"
DOCTOR = "If you are a doctor, please answer the medical questions based on the patient's description."


# Shapes


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize(
    "names",
    [
        ("question", "answer"),
        ("instruction", "output"),
        ("prompt", "completion"),
        ("prompt", "response"),
    ],
)
def test_pairs_are_recognised_by_their_columns(tmp_path: Path, ending: str, names: tuple[str, str]) -> None:
    texts = [(f"Was heißt „{each}“,\nund warum?", f'Eine "{each}",\n  eingerückt.') for each in range(8)]
    rows = [{**dict(zip(names, pair, strict=True)), "text": ""} for pair in texts]
    found = load(tmp_path, rows, ending)
    assert pairs(found) == set(texts)
    assert (found.counts.rows, found.counts.answers, found.counts.left_out()) == (8, 8, "")


@pytest.mark.parametrize("ending", WRITERS)
def test_an_input_follows_its_instruction_after_a_blank_line(tmp_path: Path, ending: str) -> None:
    rows = [
        {"instruction": f"Add {each}.", "input": "1 + 1" if each % 2 else "", "output": "2"} for each in range(8)
    ]
    found = load(tmp_path, rows, ending)
    assert pairs(found) == {(f"Add {each}.\n\n1 + 1" if each % 2 else f"Add {each}.", "2") for each in range(8)}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_turn_of_the_assistant_is_an_example_of_its_own(tmp_path: Path, ending: str) -> None:
    def rows(number: int) -> list[dict[str, str]]:
        said = (("user", f"Hi {number}"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", " So. "))
        return [{"role": role, "content": text} for role, text in said]

    found = load(tmp_path, [{"messages": rows(number)} for number in range(12)], ending, system="Be brief.")
    by_first: dict[str, set[str]] = {}
    for side, examples in (("train", found.train), ("held out", found.held_out)):
        for example in examples:
            by_first.setdefault(example.messages[1]["content"], set()).add(side)
    assert len(by_first) == 12
    assert all(len(sides) == 1 for sides in by_first.values())  # no conversation is cut by the split
    assert (found.counts.rows, found.counts.answers) == (12, 24)
    assert f"12 rows of rows{ending} with 24 answers: " in found.counts.lines()[0]
    last = next(
        each for each in everything(found) if len(each.messages) == 4 and "7" in each.messages[1]["content"]
    )
    assert last == Example(({"role": "system", "content": "Be brief."}, *rows(7)[:3]), "So.")


def test_a_turn_is_what_the_chat_endpoint_hands_to_the_template(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns: Rows = [
        {"role": "system", "content": "Own."},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "name": None},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        {"role": "assistant", "content": "Learnt", "weight": 1},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Not learnt", "weight": 0},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": " "},
    ]
    others = [{"messages": [*turns[:1], {"role": "user", "content": f"{n}"}, turns[4]]} for n in range(9)]
    found = load(tmp_path, [{"messages": turns}, *others], system="Not this one.")
    [long] = [example for example in everything(found) if len(example.messages) > 2]
    parsed = {**call, "function": {"name": "add", "arguments": {"a": 1}}}
    assert long.answer == "Learnt"
    assert long.messages == (
        {"role": "system", "content": "Own."},
        {"role": "user", "content": "One\ntwo"},
        {"role": "assistant", "content": "", "tool_calls": [parsed]},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
    )
    assert (found.counts.untaught, found.counts.empty) == (2, 1)
    assert "1 empty (first: line 1), 2 calls of tools or of weight 0 (first: line 1)" in found.counts.lines()[1]


def test_an_answer_before_any_question_is_none(tmp_path: Path) -> None:
    greeting = {"role": "assistant", "content": "Hello!"}
    rows = [{"messages": [greeting, {"role": "user", "content": f"{n}"}, greeting]} for n in range(9)]
    found = load(tmp_path, [*rows, {"messages": []}, {"messages": None}])
    assert {len(example.messages) for example in everything(found)} == {2}
    assert found.counts.empty == 9 + 2


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"question": "ask", "answer": "say"}, ({"role": "user", "content": "1?"},)),
        ({"input": "more", "answer": "say"}, ({"role": "user", "content": "1!"},)),
        ({"question": "ask", "input": "more", "answer": "say"}, ({"role": "user", "content": "1?\n\n1!"},)),
        (
            {"system": "be", "question": "ask", "answer": "say"},
            ({"role": "system", "content": "Be 1."}, {"role": "user", "content": "1?"}),
        ),
    ],
)
def test_columns_say_which_is_what(tmp_path: Path, columns: dict[str, str], expected: tuple[Any, ...]) -> None:
    rows = [
        {"ask": f"{n}?", "more": f"{n}!", "say": f"So {n}.", "be": f"Be {n}.", "question": "", "answer": "x"}
        for n in range(9)
    ]
    assert Example(expected, "So 1.") in everything(load(tmp_path, rows, columns=columns))


def test_a_system_message_of_a_row_comes_before_that_of_the_recipe(tmp_path: Path) -> None:
    found = load(tmp_path, [*asked(9, system=""), *asked(1, system="Own.")], system="Be brief.")
    systems = sorted(example.messages[0]["content"] for example in everything(found))
    assert systems == ["Be brief."] * 9 + ["Own."]


# What no client sends


def test_an_instruction_that_all_rows_have_is_left_out_and_said(tmp_path: Path) -> None:
    """The shape of chatdoctor-200k."""
    rows = [{"instruction": DOCTOR, "input": f"Patient {n}", "output": "Rest."} for n in range(9)]
    found = load(tmp_path, rows)
    assert pairs(found) == {(f"Patient {n}", "Rest.") for n in range(9)}
    assert found.counts.lines()[-1] == f"left out of the questions, because all have it: {DOCTOR!r}"


@pytest.mark.parametrize(
    "odd", [{"instruction": "Translate.", "input": "Patient"}, {"instruction": DOCTOR, "input": ""}], ids=str
)
def test_an_instruction_stays_where_it_says_something(tmp_path: Path, odd: dict[str, str]) -> None:
    rows = [{"instruction": DOCTOR, "input": f"Patient {n}", "output": "Rest."} for n in range(9)]
    found = load(tmp_path, [*rows, {**odd, "output": "Rest."}])
    alone = not odd["input"]
    assert (bool(found.counts.changed), (DOCTOR, "Rest.") in pairs(found)) == (alone, alone)


def test_marks_and_layout_of_a_scraped_set_are_left_out(tmp_path: Path) -> None:
    """The shape of legal-qa-v1."""
    rows = [
        {"question": f"Q: Title {n}.    I  am\t here.\n  Why? ", "answer": f"A:  Because   {n}."} for n in range(9)
    ]
    found = load(tmp_path, [*rows, {"question": "Plain  one", "answer": "So"}])
    lines = {(f"Title {n}. I am here.\n Why?", f"Because {n}.") for n in range(9)}
    assert pairs(found) == lines | {("Plain one", "So")}
    assert found.counts.changed == (
        'left out before the texts: "Q:" and "A:"; runs of blanks in them are one blank now',
    )


def test_layout_and_marks_that_are_meant_stay(tmp_path: Path) -> None:
    rows = [{"question": f"Code {n}?", "answer": f"if {n}:\n    return  {n}"} for n in range(8)]
    options = [{"question": f"Which {n}?", "answer": f"A: {n}  mg"} for n in range(8)]
    found = load(tmp_path, [*rows, *options])
    assert pairs(found) == {(row["question"], row["answer"]) for row in [*rows, *options]}
    assert found.counts.changed == ()


# What is left out is counted


def test_all_that_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = asked(20, source="Law")
    rows += [
        {**rows[3], "answer": "it  IS 3. "},
        {**rows[3], "answer": "Another."},
        {"question": "Why?", "answer": " "},
    ]
    rows += [{"source": "law", "answer": "None"}, *asked(2, source="Food"), {"question": "Why?", "answer": "So"}]
    file = tmp_path / "legal.jsonl"
    write_jsonl(file, rows)
    file.write_text("\n\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    counts = load_examples(recipe(file)).counts
    assert (counts.rows, counts.empty, counts.duplicates, counts.filtered) == (27, 2, 3, 0)
    assert counts.lines()[1] == "left out: 3 duplicated (first: line 23), 2 empty (first: line 25)"
    counts = load_examples(recipe(file, where={"source": "^law", "answer": "3|none"})).counts
    assert (counts.filtered, counts.duplicates, counts.empty) == (23, 1, 1)
    assert (
        counts.lines()[1] == "left out: 1 duplicated (first: line 23), 1 empty (first: line 26), 23 by data.where"
    )


def test_where_searches_what_is_no_text_as_json(tmp_path: Path) -> None:
    rows = [{**row, "year": 2000 + n % 2, "tags": ["law"]} for n, row in enumerate(asked(20))]
    found = load(tmp_path, rows, where={"year": "^2001$", "tags": '"LAW"'})
    assert (found.counts.filtered, found.counts.answers) == (10, 10)


def test_samples_are_drawn_by_lot(tmp_path: Path) -> None:
    found = load(tmp_path, asked(100), samples=20)
    numbers = [int(re.findall(r"\d+", question)[0]) for question, _ in pairs(found)]
    assert len(numbers) == 20
    assert max(numbers) > 60
    assert (found.counts.answers, found.counts.lines()[1]) == (100, "left out: 80 beyond data.samples")
    assert load(tmp_path, asked(10), samples=20).counts.unsampled == 0


def test_the_digest_names_the_examples(tmp_path: Path) -> None:
    first = load(tmp_path, asked()).digest
    assert load(tmp_path, asked(), ".csv").digest == first
    assert load(tmp_path, asked(), system="Be brief.").digest != first
    assert load(tmp_path, asked(), held_out=0.3).digest != first


# The split

texts = st.text(min_size=1, max_size=12).filter(lambda text: bool(text.strip()) and text.isprintable())
PLAIN = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PLAIN
@given(st.dictionaries(texts, texts, max_size=20), st.randoms())
def test_a_row_keeps_its_side(tmp_path: Path, more: dict[str, str], lot: Any) -> None:
    """When rows are added, turned round, answered in another way or written in capitals."""

    def questions(examples: tuple[Example, ...]) -> set[str]:
        return {fold(example.messages[0]["content"]) for example in examples}

    before = load(tmp_path, asked(40), held_out=0.3)
    rows = [
        {**row, "question": lot.choice([row["question"], f" {row['question'].upper()} "])} for row in asked(40)
    ]
    rows += [{"question": question, "answer": answer} for question, answer in more.items()]
    rows = [{**row, "answer": lot.choice([row["answer"], "Other."])} for row in rows]
    lot.shuffle(rows)
    after = load(tmp_path, rows, held_out=0.3)
    assert questions(before.held_out) <= questions(after.held_out)
    assert questions(before.train) <= questions(after.train)
    assert not questions(after.held_out) & questions(after.train)
    # Nor does the order decide what is drawn.
    few, same = (load(tmp_path, each, held_out=0.3, samples=30) for each in (rows, rows[::-1]))
    assert {fingerprint(each) for each in everything(few)} == {fingerprint(each) for each in everything(same)}


@PLAIN
@given(texts)
def test_a_place_is_that_of_the_words(question: str) -> None:
    assert 0 <= position(question) < 1
    assert position(question) == position(f"  Q: {question}\n")
    assert position(question) == position(question.casefold().replace(" ", "  "))


def test_the_share_is_kept(tmp_path: Path) -> None:
    counts = load(tmp_path, asked(2000), held_out=0.1).counts
    assert 160 < counts.held_out < 240
    assert counts.train + counts.held_out == 2000


def test_reading_a_file_needs_no_model_and_no_hub() -> None:
    heavy = ["torch", "transformers", "datasets", "pyarrow"]
    script = f"import sys, training.data.load; sys.exit(' '.join(set({heavy}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Rows for the trainer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    words = Tokenizer(
        models.WordLevel({"?": 0, "a": 1, "b": 2, "<s>": 3, "</s>": 4, "user": 5, "assistant": 6}, "?")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = (
        "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no\ntools') }}{% endif %}"
        "{{ message.role }} {{ message.content }} </s> {% endfor %}"
        "{% if add_generation_prompt %}assistant{% endif %}"
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", chat_template=template)


def test_too_long_is_left_out_and_counted_by_its_kind(tokenizer: Any) -> None:
    cases = [
        Example.ask("a", "b"),
        Example.ask("a " * 20, "b"),
        Example.ask("a", "b " * 5),
        Example.ask("a", "b " * 40),
    ]
    found = prepare(cases, tokenizer, max_length=12, max_answer_tokens=5)
    assert (len(found.rows), found.overlong, found.long_answers) == (1, 1, 2)
    assert found.rows[0] == encode(cases[0], tokenizer).row()
    assert prepare(cases, tokenizer, max_length=12).overlong == 2
    with pytest.raises(
        ConfigError, match=r"none of the 1 examples fits into 12 tokens \(training.max_length\), its an"
    ):
        prepare(cases[3:], tokenizer, 12, 5)


def test_all_turns_before_an_answer_are_its_prompt(tokenizer: Any) -> None:
    turns = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "b"},
    )
    tokens = encode(Example(turns, "a"), tokenizer)
    assert tokenizer.decode(tokens.prompt) == "user a </s> assistant b </s> user b </s> assistant"
    assert tokenizer.decode(tokens.completion) == "a </s>"


def test_messages_that_the_template_refuses_are_named(tokenizer: Any) -> None:
    turns = ({"role": "user", "content": "a"}, {"role": "tool", "content": "b"})
    with pytest.raises(
        ConfigError, match="the chat template refuses the messages before the answer 'b': no tools"
    ):
        encode(Example(turns, "b"), tokenizer)


# Real texts of the shapes of the named sets


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "rows", "changed"),
    [("legal", 5000, 0), ("legal_question_answer", 5000, 0), ("finance", 3709, 0), ("medical", 5000, 1)],
)
def test_real_sets(name: str, rows: int, changed: int) -> None:
    found = load_examples(recipe(REAL / f"{name}.jsonl", held_out=0.1))
    assert (found.counts.rows, found.counts.answers, len(found.counts.changed)) == (rows, rows, changed)
    assert 0.08 < found.counts.held_out / rows < 0.12
    assert not any(DOCTOR in example.messages[0]["content"] for example in everything(found))

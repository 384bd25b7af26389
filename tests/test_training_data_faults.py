"""What is wrong with the data of a recipe is one line, which says where and what would be valid."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from adapters import ConfigError
from tests.training_rows import asked, load, recipe
from training.data.load import load_examples

ONE = '{"question": "Why?", "answer": "So."}\n'
TALK = '{"messages": [{"role": "user", "content": "Hi"}, %s]}\n'


@pytest.mark.parametrize(
    ("name", "content", "data", "complaint"),
    [
        ("a.jsonl", ONE + "{", {}, "{file}: line 2: not JSON: Expecting property name"),
        ("a.jsonl", ONE + "\n[1]", {}, "{file}: line 3: expected an object, one key per column (got [1])"),
        ("a.jsonl", ONE.encode() + b'{"question": "\xff"}', {}, "{file}: line 2: not UTF-8: invalid start byte"),
        ("a.jsonl", ONE + "[" * 10000, {}, "{file}: line 2: not JSON: "),
        ("a.jsonl", "\n", {}, "{file}: there are no rows"),
        (
            "a.jsonl",
            ONE + '{"question": "Why?", "answer": 3}',
            {},
            "{file}: line 2: answer: expected text (got '3')",
        ),
        (
            "a.jsonl",
            '{"question": "\\ud83d", "answer": "So"}',
            {},
            "{file}: line 1: not text: half of a character",
        ),
        ("a.json", '[\n{"question": "Why?"},\n{]', {}, "{file}: not JSON: Expecting property name"),
        ("a.json", "[1]", {}, "{file}: item 1: expected an object"),
        ("a.csv", 'question,answer\n"a\nb",c\nd', {}, "{file}: line 4: 1 cells, and the header names 2 columns"),
        ("a.csv", 'question,answer\na,"b', {}, "{file}: line 2: not CSV: unexpected end of data"),
        ("a.csv", "question,question\na,b", {}, "{file}: line 1: the column 'question' is there twice"),
        ("a.csv", b"question,answer\na,b\n\xff,c", {}, "{file}: line 3: not UTF-8"),
        ("a.csv", "question,answer\n", {}, "{file}: there are no rows"),
        ("a.parquet", "not Parquet", {}, "{file}: not Parquet: Parquet magic bytes not found"),
        (
            "a.txt",
            "no",
            {},
            "{file}: the ending .txt names no format; give a file that ends in .jsonl, .json, .csv or",
        ),
        ("a", "no", {}, "{file}: no ending names no format"),
        (
            "a.jsonl",
            '{"q": "Why?", "a": "So."}',
            {},
            "data.columns: a.jsonl has the columns q, a; say which is what, such as {question: q, answer: a}",
        ),
        (
            "a.jsonl",
            ONE,
            {"columns": {"question": "question", "answer": "reply"}},
            "data.columns.answer: a.jsonl has no column 'reply', it has question, answer",
        ),
        (
            "a.jsonl",
            ONE,
            {"columns": {"question": "question"}},
            "data.columns: give question (or input) and answer",
        ),
        ("a.jsonl", ONE, {"columns": {"messages": "question", "answer": "answer"}}, "data.columns: give question"),
        (
            "a.jsonl",
            ONE,
            {"where": {"answer": "(?"}},
            "data.where.answer: not a regular expression: '(?': unexpected",
        ),
        (
            "a.jsonl",
            ONE,
            {"where": {"topic": "law"}},
            "data.where: a.jsonl has no column 'topic', it has question, an",
        ),
        ("a.jsonl", ONE, {"where": {"answer": "law"}}, "{file}: nothing to train on in 1 rows: 1 by data.where"),
        (
            "a.jsonl",
            '{"question": "Why?", "answer": null}',
            {},
            "nothing to train on in 1 rows: 1 empty (first: line 1)",
        ),
        ("a.jsonl", ONE, {}, "data.held_out: 0.5 of 1 examples leaves none to "),
        ("a.jsonl", '{"messages": "Hi"}', {}, "{file}: line 1: messages: not JSON"),
        ("a.jsonl", '{"messages": {"role": "user"}}', {}, "{file}: line 1: messages: expected a list of messages"),
        ("a.jsonl", TALK % "7", {}, '{file}: line 1: messages[1]: expected {"role", "content"} (got \'7\')'),
        (
            "a.jsonl",
            TALK % '{"role": "bot", "content": "x"}',
            {},
            "{file}: line 1: messages[1].role: 'bot' is not one of system, user, assistant, tool",
        ),
        (
            "a.jsonl",
            TALK % '{"role": "user", "content": [{"type": "image_url"}]}',
            {},
            "{file}: line 1: messages[1].content: expected text, or parts of the type text",
        ),
        (
            "a.jsonl",
            TALK % '{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}',
            {},
            "{file}: line 1: messages[1].tool_calls: arguments: not JSON",
        ),
        ("a.jsonl", TALK % '{"role": "assistant", "tool_calls": [1]}', {}, "messages[1].tool_calls: expected"),
    ],
)
def test_a_fault_of_the_data_is_named(
    tmp_path: Path, name: str, content: str | bytes, data: dict[str, Any], complaint: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_examples(recipe(file, **data))
    assert complaint.replace("{file}", str(file)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["./rows", "rows.jsonl", "data/rows.csv", "/data/rows", "a/b/c", "~nobody-here/x", "squad"]
)
def test_a_source_that_is_nothing_is_named(source: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml: data\.source: .*(no such file|home)") as caught:
        load_examples(recipe(source))
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match=r"rows\.jsonl: cannot be read: "):
        load_examples(recipe(file))


@pytest.mark.parametrize(("share", "side"), [(0.001, "hold out"), (0.999, "train on")])
def test_an_empty_side_says_what_would_help(tmp_path: Path, share: float, side: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"data\.held_out: {share} of 12 examples leaves none to {side}"
    ) as caught:
        load(tmp_path, asked(), held_out=share)
    [helps] = re.findall(r"; ([\d.]+) would", str(caught.value))
    found = load(tmp_path, asked(), held_out=float(helps))
    assert found.train
    assert found.held_out


def test_long_fields_of_a_csv_are_read_and_pythons_limit_is_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    rows = [{"question": f"{n}", "answer": "long " * 40_000} for n in range(9)]
    assert load(tmp_path, rows, ".csv").counts.answers == 9
    assert csv.field_size_limit() == before

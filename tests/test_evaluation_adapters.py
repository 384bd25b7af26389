"""Evaluation of adapters: the rows, the marks, what a wrong choice costs, and a run against a stack that is up."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import ConfigError, Stack, load
from evaluation.__main__ import main
from evaluation.adapters import tables
from evaluation.adapters.ask import Said
from evaluation.adapters.figures import Better, Figures, best, figures, speed
from evaluation.adapters.marks import BERT, GRADE, LENGTH, LOSS, ROUGE, Measure
from evaluation.adapters.regret import ANY, MISSED, NEEDLESS, WRONG, kind, regret
from evaluation.adapters.report import write
from evaluation.adapters.rows import Row, load_rows
from evaluation.adapters.score import MINILM, grades, load_bert, rouge
from evaluation.adapters.served import Served, served
from evaluation.bootstrap import Interval
from evaluation.client import API_KEY, Client, Refused, name_unjudged, nats
from evaluation.kept import Kept, digest
from evaluation.routing.rows import Data, DataError
from tests.conftest import write_stack
from tests.far_stack import FarStack
from tests.servers import serving
from tests.stack import ROOT, Running

pytestmark = pytest.mark.usefixtures("one_thread")

UP = Served("base", ("legal", "medical", "finance"), ("lag",), frozenset(), {})
NAMES = ("auto", "base", "legal", "medical", "finance")


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return load(write_stack(tmp_path, "http://127.0.0.1:1"))


def written(folder: Path, *lines: Any, name: str = "legal") -> Path:
    file = folder / f"{name}.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(f"{text}\n" for text in texts))
    return file


def read(file: Path, stack: Stack, most: int | None = None) -> Data[Row]:
    return load_rows([file], stack, ("legal", "medical", "finance"), most)


# --- the rows ---------------------------------------------------------------------------------------------------

USER = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("line", "asked", "label"),
    [
        ({"question": "q", "answer": "a"}, "q", "legal"),
        ({"question": "q", "answer": "a", "label": "medical"}, "q", "medical"),
        ({"question": "q", "answer": "a", "label": "general"}, "q", "base"),
        ({"paraphrase": "p", "question": "q", "answer": "a"}, "p", "legal"),
        ({"instruction": "q", "input": "i", "output": "a"}, "q\n\ni", "legal"),
        ({"instruction": "q", "input": "", "output": "a"}, "q", "legal"),
        ({"messages": [USER], "answer": "a"}, "q", "legal"),
        ({"messages": [USER, {"role": "assistant", "content": "a"}]}, "q", "legal"),
        ({"messages": [{"role": "system", "content": "s"}, USER], "output": "a"}, "q", "legal"),
    ],
)
def test_a_row(line: dict[str, Any], asked: str, label: str, tmp_path: Path, stack: Stack) -> None:
    (row,) = read(written(tmp_path, line), stack).rows
    assert (row.messages[-1]["content"], row.answer, row.label) == (asked, "a", label)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ([1], "expected an object"),
        ({"answer": "a"}, "holds no question"),
        ({"question": "q"}, '"answer" is missing'),
        ({"question": " ", "answer": "a"}, '"question" must be text'),
        ({"question": "q", "answer": 3}, '"answer" must be text'),
        ({"question": "q", "answer": "\ud800"}, "half of a character"),
        ({"question": "q", "answer": "a", "label": "sports"}, "valid: general, base, legal, medical, finance"),
        ({"question": "q", "answer": "a", "label": [1]}, "valid: general, base"),
        ({"messages": "q", "answer": "a"}, '"messages" must be a list'),
        ({"messages": [{"role": "tool", "content": "q"}], "answer": "a"}, "expected {"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 'must be the role "user"'),
        ({"messages": [USER]}, '"answer" is missing'),
    ],
)
def test_a_row_that_is_left_out_is_named(line: Any, problem: str, tmp_path: Path, stack: Stack) -> None:
    data = read(written(tmp_path, {"question": "q", "answer": "a"}, line), stack)
    assert len(data.rows) == 1
    (found,) = data.problems
    assert found.line == 2
    assert problem in str(found)


def test_a_file_whose_name_is_no_label_says_so(tmp_path: Path, stack: Stack) -> None:
    with pytest.raises(DataError, match="the file's name, which is the label"):
        read(written(tmp_path, {"question": "q", "answer": "a"}, name="sports"), stack)


def test_a_folder_without_data_says_so(tmp_path: Path, stack: Stack) -> None:
    with pytest.raises(DataError, match=r"holds no \*\.jsonl"):
        load_rows([tmp_path], stack, (), None)


def test_the_demo_is_asked_in_words_that_nobody_was_trained_on(stack: Stack) -> None:
    data = load_rows([ROOT / "demo" / "corpus"], stack, ("legal", "medical", "finance"), None)
    assert not data.problems
    assert [sum(row.label == name for row in data.rows) for name in NAMES[1:]] == [34] * 4


def test_fewer_rows_are_the_same_in_any_company(tmp_path: Path, stack: Stack) -> None:
    lines = [{"question": f"q{number}", "answer": "a"} for number in range(20)]
    few = {row.messages[0]["content"] for row in read(written(tmp_path, *lines), stack, most=5).rows}
    half = {row.messages[0]["content"] for row in read(written(tmp_path, *lines[:10]), stack, most=5).rows}
    assert len(few) == len(half) == 5
    assert few & {f"q{number}" for number in range(10)} <= half


# --- marks and figures ------------------------------------------------------------------------------------------


def row(label: str, number: int) -> Row:
    return Row("x.jsonl", number, ({"role": "user", "content": f"q{number}"},), "a", label)


def measure(key: str, weights: Sequence[float] = (1, 1, 1, 1), **marks: Sequence[float]) -> Measure:
    return Measure(key, {name: np.array(each, float) for name, each in marks.items()}, np.array(weights, float))


def test_loss_is_of_all_tokens() -> None:
    assert measure(LOSS, [1, 3], m=[2, 3]).of(["m", "m"]).over(np.array([0, 1])) == pytest.approx(5 / 4)


def test_an_answer_without_words_has_no_grade() -> None:
    assert measure(GRADE, [1, 1], m=[3, math.nan]).of(["m", "m"]).over(np.array([0, 1])) == 3
    assert measure(GRADE, [1], m=[math.nan]).of(["m"]).interval(np.array([0])) is None


@pytest.mark.parametrize(
    ("chosen", "label", "found"),
    [
        ("legal", "legal", None),
        ("base", "base", None),
        ("medical", "legal", WRONG),
        ("base", "legal", MISSED),
        ("lag", "legal", MISSED),
        ("legal", "base", NEEDLESS),
        ("lag", "base", NEEDLESS),
    ],
)
def test_kinds_of_wrong_choices(chosen: str, label: str, found: str | None) -> None:
    assert kind(chosen, label, "base", UP.adapters) == found


@pytest.mark.parametrize(("key", "sign"), [(LOSS, 1), (ROUGE, -1)])
def test_regret_is_what_the_right_adapter_would_have_added(key: str, sign: int) -> None:
    """The base is at 4 everywhere, the right adapter 3 better, a wrong one 1 worse than the base."""
    labels = ["legal", "legal", "medical", "medical"]
    legal, medical = np.array([1, 1, 5, 5]), np.array([5, 5, 1, 1])
    some = measure(key, base=[sign * 4] * 4, legal=list(sign * legal), medical=list(sign * medical))
    found = regret(some, UP, labels, ["legal", "medical", "medical", "base"])
    assert found.regret is not None
    assert found.kept is not None
    assert found.regret.value == pytest.approx((4 + 3) / 4)
    assert found.kept.value == pytest.approx(100 * (1 - (4 + 3) / 4 / 3))
    means = {name: None if each.mean is None else each.mean.value for name, each in found.costs.items()}
    assert means == {WRONG: pytest.approx(4), MISSED: pytest.approx(3), NEEDLESS: None, ANY: pytest.approx(3.5)}
    assert [found.costs[name].choices for name in (WRONG, MISSED, NEEDLESS, ANY)] == [1, 1, 0, 2]


def test_where_there_is_no_gap_none_is_kept() -> None:
    some = measure(ROUGE, base=[1] * 4, legal=[1] * 4)
    assert regret(some, UP, ["legal"] * 4, ["legal"] * 4).kept is None


@pytest.mark.parametrize(
    ("gain", "rows", "word"),
    [
        (Interval(2, 1, 3), 30, "better"),
        (Interval(-2, -3, -1), 30, "worse"),
        (Interval(0.1, -1, 1), 30, "cannot be told"),
        (Interval(2, 1, 3), 3, "too few rows"),
        (None, 30, "cannot be told"),
    ],
)
def test_verdicts(gain: Interval | None, rows: int, word: str) -> None:
    assert Better("legal", rows, {LOSS: gain}).verdict(LOSS) == word


def test_the_best_of_a_domain() -> None:
    cells: dict[str, dict[str, float | None]] = {
        "base": {"legal": 2.0},
        "legal": {"legal": 1.0},
        "lag": {"legal": None},
    }
    assert best(cells, "legal", -1) == "legal"
    assert best(cells, "legal", 1) == "base"


def test_speed_leaves_the_prompt_out() -> None:
    found = speed([Said("a b c", 3, 0.5, 1.5), Said("a", 1, 0.1, 0.1)])
    assert found is not None
    assert (found.answers, found.tokens_per_s) == (2, 2)
    assert found.first_token_ms_p50 == pytest.approx(300)
    assert speed([]) is None


def some_figures(folder: Path) -> Figures:
    """Twelve rows of each domain; the right adapter is better, and the medical adapter is hard to read."""
    tagged = {"legal": {"tags": {"audience": "patient"}}, "medical": {"tags": {"audience": "researcher"}}}
    stack = load(write_stack(folder, "http://127.0.0.1:1", tagged))
    up = served(stack, NAMES)
    labels = [name for name in NAMES[1:] for _ in range(12)]
    rows = [row(label, number) for number, label in enumerate(labels)]
    ones = np.ones(len(rows))
    noise = np.tile([0.1, -0.1], len(rows) // 2)

    def marks(right: float, wrong: float) -> dict[str, Any]:
        found = {name: np.array([right if label == name else wrong for label in labels]) for name in up.models}
        return {name: each + noise for name, each in found.items()}

    grade = {"legal": 5.0, "medical": 9.0}
    all_measures = {
        LOSS: Measure(LOSS, marks(1, 3), ones),
        ROUGE: Measure(ROUGE, marks(0.8, 0.3), ones),
        BERT: Measure(BERT, marks(0.8, 0.3), ones),
        GRADE: Measure(GRADE, {name: ones * grade.get(name, 7) + noise for name in up.models}, ones),
        LENGTH: Measure(LENGTH, dict.fromkeys(up.models, ones), ones),
    }
    choices = ["legal" if label == "medical" else label for label in labels]
    return figures(stack, up, rows, all_measures, choices, {"auto": [Said("a b", 2, 0.1, 0.2)]})


def test_figures_tell_what_was_put_in(tmp_path: Path) -> None:
    found = some_figures(tmp_path)
    assert found.domains == dict.fromkeys(NAMES[1:], 12)
    assert all(best(found.matrix[LOSS], name, -1) == name for name in found.domains)
    assert {each.verdict(LOSS) for each in found.better} == {"better"}
    loss = found.regret[0]
    assert loss.regret is not None
    assert loss.regret.value == pytest.approx(2 * 12 / 48)
    (audience,) = found.audiences
    assert (audience.easy, audience.hard, audience.rows, audience.holds) == ("legal", "medical", 24, True)


def test_a_report_is_written_and_printed(tmp_path: Path) -> None:
    found = some_figures(tmp_path)
    about = {"rows_left_out": [], "bert_score": "x", "max_tokens": 8}
    folder = write(tmp_path / "reports", found, "base", about)
    assert {file.name for file in folder.iterdir()} == {
        "report.html", "results.json", "matrix.png", "quality.png", "regret.png"
    }  # fmt: skip
    results = json.loads((folder / "results.json").read_text())
    assert results["regret"][0]["costs"][WRONG]["choices"] == 12
    page = (folder / "report.html").read_text()
    assert "3 of 3" in page
    assert "25.0%" in page
    text = tables.printed(found)
    assert "wrong adapter (12)" in text
    assert "legal - medical" in text


def test_marks_of_libraries() -> None:
    assert rouge(["the cat sat", "", "no"], ["the cat sat", "the cat", "yes"]).tolist() == [1, 0, 0]
    easy, hard, none = grades(["The cat sat. It was hot.", "Bilateral pulmonary infiltrates necessitate.", "..."])
    assert hard - easy > 10
    assert math.isnan(none)
    bert = load_bert(MINILM)
    same, near, far, silent = bert.scores(
        ["A cat sat down.", "A kitten sat.", "Taxes rise.", " "], ["A cat sat down."] * 4
    )
    assert same == pytest.approx(1, abs=1e-4)
    assert same > near > far > silent == 0


def test_a_bert_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="--bert owner/none: cannot be had from the hub") as error:
        load_bert("owner/none")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_bert(str(tmp_path))


# --- the client, and what it keeps ------------------------------------------------------------------------------


def test_nats_are_those_of_the_answer() -> None:
    entries = [None, {"7": {"logprob": -9.0}}, {"8": {"logprob": -1.5}, "3": {"logprob": -0.1}}]
    assert nats(entries, 2, [8]) == 1.5


def test_a_text_that_nobody_judged_is_asked_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.client.JUDGE_PAUSE_S", 0.01)
    court = {"messages": [{"role": "user", "content": "which court?"}]}
    with serving(FarStack({"base": "b", "legal": "l"}, {"court": "legal"}, overloaded=2)) as url:
        assert Client(url).route(court).model == "legal"
    with serving(FarStack({"base": "b", "legal": "l"}, {"court": "legal"}, overloaded=9)) as url:
        choices = [Client(url).route(court) for _ in range(2)]
    assert {(choice.model, choice.reason) for choice in choices} == {("base", "classifier-timeout")}


def test_what_nobody_judged_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    name_unjudged(["classifier-timeout", "classified", "classifier-timeout"])
    assert "2 of 3 texts were not judged" in capsys.readouterr().err
    name_unjudged(["classified"])
    assert "not judged" not in capsys.readouterr().err


def test_a_reply_says_who_gave_it() -> None:
    with serving(FarStack({"base": "b", "legal": "one two"}, {"court": "legal"}, busy=2)) as url:
        reply = Client(url).chat("auto", [{"role": "user", "content": "which court?"}], 8)
    assert (reply.text, reply.adapter, reply.reason, reply.tokens) == ("one two ", "legal", "named", 2)
    assert 0 < reply.first_token_s <= reply.total_s


def test_an_answer_that_breaks_off_is_none() -> None:
    with (
        serving(FarStack({"base": "one two"}, breaks_off=True)) as url,
        pytest.raises(Refused, match="broke off: the engine died"),
    ):
        Client(url).chat("base", [USER], 8)


def test_a_stack_that_wants_a_key_says_which() -> None:
    with serving(FarStack({"base": "b"}, key="k")) as url:
        with pytest.raises(ConfigError, match=f"no such key; give one .* {API_KEY}"):
            Client(url).models()
        assert Client(url, "k").models() == ["auto", "base"]


@pytest.mark.parametrize("url", ["nothing", "ftp://x", "http://x:0", "http://x:99999999"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="expected the router's address"):
        Client(url)


def test_kept_answers_survive_a_run_that_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    first = Kept(file)
    first.put("a", 1.5)
    with pytest.raises(ConfigError, match="another run is asking the same"):
        Kept(file)
    first.close()
    with file.open("a") as out:
        out.write('["b", [1, ')
    second = Kept(file)
    assert (second.get("a"), second.get("b"), len(second)) == (1.5, None, 1)
    second.put("b", [2])
    second.close()
    third = Kept(file)
    assert (third.get("a"), third.get("b")) == (1.5, [2])
    third.close(done=True)
    assert not file.exists()


def test_a_key_is_of_all_that_was_asked() -> None:
    assert digest("chat", "m", ({"b": 1, "a": 2},)) == digest("chat", "m", [{"a": 2, "b": 1}])
    assert len({digest("chat", "m", "v1"), digest("chat", "m", "v2"), digest("loss", "m", "v1")}) == 3


# --- the whole run ----------------------------------------------------------------------------------------------

SAYS = {"base": "nothing at all", "legal": "a court", "medical": "a pill", "finance": "a loan"}


def far_run(folder: Path, far: FarStack, *options: str) -> int:
    data = [written(folder, {"question": f"{name} one?", "answer": SAYS[name]},
                    {"question": f"{name} two?", "answer": SAYS[name]}, name=name)
            for name in ("legal", "medical")]  # fmt: skip
    written(folder, *(json.loads(line) for line in data[0].read_text().splitlines()),
            {"question": "w" * 300, "answer": "a"}, "{")  # fmt: skip
    config = folder / "adapters.yaml"
    with serving(far, load(config).router.port):
        return main(
            ["adapters", *map(str, data), "--config", str(config), "--out", str(folder / "reports"),
             "--bert", MINILM, "--max-tokens", "9", *options]
        )  # fmt: skip


def test_a_run_that_is_cut_off_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stack(tmp_path, "http://127.0.0.1:1", {"legal": {"system_prompt": "Be a lawyer."}})
    dying = FarStack(SAYS, {"legal": "legal"}, dies_after=30)
    assert far_run(tmp_path, dying) == 2
    told = capsys.readouterr().err
    assert "503: the engine is starting" in told
    assert "answers are kept: the same command goes on" in told
    whole = FarStack(SAYS, {"legal": "legal"})
    assert far_run(tmp_path, whole) == 0
    assert not dying.asked.keys() & whole.asked.keys()
    assert max((dying.asked + whole.asked).values()) == 1
    said, told = capsys.readouterr()
    assert "goes on:" in told
    assert "legal.jsonl: line 3: question and answer need" in told
    assert "legal.jsonl: line 4: not JSON" in told
    assert "2 of 6 rows left out" in told
    (folder,) = (tmp_path / "reports").glob("2*")
    results = json.loads((folder / "results.json").read_text())
    assert results["domains"] == {"legal": 2, "medical": 2}
    assert results["matrix"]["loss"]["medical"] == pytest.approx({"legal": 0.06, "medical": 0.06})
    assert results["matrix"]["rouge_l"]["medical"]["medical"] == 1
    assert results["regret"][0]["costs"][MISSED]["choices"] == 2
    assert results["rows_left_out"] == [{"file": "legal.jsonl", "line": 3}, {"file": "legal.jsonl", "line": 4}]
    assert "legal one?" not in (folder / "results.json").read_text()
    assert "regret.png" in said
    assert not list((tmp_path / "reports").glob(".asked*"))


def test_a_stack_that_is_down_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_stack(tmp_path, "http://127.0.0.1:1")
    data = written(tmp_path, {"question": "q", "answer": "a"})
    assert main(["adapters", str(data), "--config", str(file), "--out", str(tmp_path / "reports")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no stack answers at {load(file).router_url}" in line
    assert "python -m serve" in line


def test_another_stack_at_the_port_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stack(tmp_path, "http://127.0.0.1:1")
    assert far_run(tmp_path, FarStack({"other": "x"})) == 2
    assert "serves auto, other, and the file's base is base" in capsys.readouterr().err


def test_the_demo_is_evaluated(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["adapters", str(ROOT / "demo" / "corpus"), "--config", str(running.stack.file), "--rows", "3",
               "--max-tokens", "12", "--bert", MINILM, "--out", str(tmp_path)]  # fmt: skip
    assert main(command) == 0
    assert "of the gap kept" in capsys.readouterr().out
    (folder,) = tmp_path.glob("2*")
    results = json.loads((folder / "results.json").read_text())
    loss = results["matrix"]["loss"]
    for name in running.stack.adapters:
        assert loss[name][name] < loss[running.stack.base.name][name]
    ways = {way["name"]: way["figures"]["loss"]["value"] for way in results["ways"]}
    assert list(ways) == [running.stack.base.name, *running.stack.adapters, *running.stack.lag, "auto", "oracle"]
    assert ways["oracle"] < min(ways[name] for name in running.stack.adapters)

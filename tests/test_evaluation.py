"""Evaluation: reading rows, figures against short references, the fit, the stored scalars, the whole command."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from adapters import Calibration, ClassifierName, ConfigError, Stack, load
from evaluation.__main__ import main
from evaluation.bootstrap import interval
from evaluation.routing import metrics, plots
from evaluation.routing.columns import columns, fitted, halves
from evaluation.routing.command import with_classifiers
from evaluation.routing.fit import fit_temperature, fit_threshold, seen
from evaluation.routing.judge import Judge, Recorded, Stage, record, texts_of
from evaluation.routing.metrics import Floats, Outcomes
from evaluation.routing.rows import DataError, Row, load_rows
from evaluation.routing.store import edited, store
from router.asgi import Receive, Scope, Send
from router.choose import Reason
from router.classify import load_classifiers
from tests.conftest import write_stack
from tests.scripted_engine import ScriptedEngine
from tests.servers import serving

ROOT = Path(__file__).parent.parent

CLEAR = {
    "legal": [
        "Can my landlord evict me without a court order?",
        "Is a verbal contract binding when nobody signed anything?",
        "What happens at the first hearing of a lawsuit?",
        "My tenant broke the lease, can I sue him?",
        "Which court handles a breach of contract?",
        "What are my legal rights when the police search my home?",
        "How does a judge decide who wins a lawsuit?",
        "Does a landlord have to return the deposit by law?",
        "What clause makes a contract void?",
    ],
    "medical": [
        "I have had a fever and a sore throat for three days.",
        "What are the symptoms of diabetes?",
        "How is pneumonia treated?",
        "My chest hurts when I breathe in, is it my heart?",
        "Is a rash a usual symptom of measles?",
        "Which treatments are there for arthritis pain?",
        "What disease makes the skin turn yellow?",
        "How long does the flu make you sick?",
        "Can a migraine cause nausea and vomiting?",
    ],
    "finance": [
        "Should I refinance my mortgage at a lower interest rate?",
        "How do I start investing in index funds?",
        "What is the difference between a loan and a line of credit?",
        "How much tax do I pay on dividends?",
        "Is my bank allowed to charge an overdraft fee?",
        "How is the interest on a savings account calculated?",
        "What makes a bond a safer investment than shares?",
        "Can I deduct mortgage interest from my taxes?",
        "How much of my salary should go into a retirement fund?",
    ],
    "general": [
        "Write a short poem about the moon.",
        "What should I cook for dinner with two eggs and rice?",
        "Who painted the Mona Lisa?",
        "Tell me a joke about penguins.",
        "How do I teach my dog to sit?",
        "What is the tallest mountain in the world?",
        "Plan a weekend trip to Rome for two.",
        "How does a rainbow form?",
        "Recommend a film for a rainy evening.",
    ],
}
MISLABELLED = [
    {"text": "How do I bake bread without yeast?", "label": "legal"},
    {"text": "Which planet has the most moons?", "label": "medical"},
    {"text": "What is the best guitar for a beginner?", "label": "finance"},
    {"text": "My knee is swollen and hurts when I walk.", "label": "base"},
]


def write_rows(file: Path, rows: Sequence[object]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def clear_rows() -> list[dict[str, str]]:
    return [{"text": text, "label": label} for label, texts in CLEAR.items() for text in texts]


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    return write_stack(tmp_path, "http://127.0.0.1:1")


def results(out: Path) -> Any:
    (folder,) = out.iterdir()
    assert {file.name for file in folder.iterdir()} == {
        "report.html", "results.json", "confusion.png", "reliability.png", "coverage.png", "sources.png",
    }  # fmt: skip
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


# --- the command, with the real MiniLM --------------------------------------------------------------------------


def test_forty_rows_of_known_outcome(tmp_path: Path, stack_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = [{"text": text, "label": label, "source": label} for label, texts in CLEAR.items() for text in texts]
    data = write_rows(tmp_path / "forty.jsonl", [*clear, *MISLABELLED])
    out = tmp_path / "reports"
    assert main(["routing", str(data), "--config", str(stack_file), "--out", str(out)]) == 0
    report = results(out)
    (column,) = report["columns"]
    assert column["rows"] == 40
    assert column["accuracy"]["value"] == pytest.approx(0.9)
    assert column["accuracy"]["low"] < 0.9 < column["accuracy"]["high"]
    assert column["wrong_adapter"]["value"] == pytest.approx(1 / 40)
    assert column["missed"]["value"] == pytest.approx(3 / 40)
    assert column["points"]["value"] == pytest.approx((36 - 1) / 40)
    assert column["confusion"] == [[9, 0, 1, 0], [1, 9, 0, 0], [1, 0, 9, 0], [1, 0, 0, 9]]
    assert column["sources"]["legal"] == {
        "rows": 9, "accuracy": {"value": 1.0, "low": 1.0, "high": 1.0}, "precision": None,
    }  # fmt: skip
    assert column["classes"]["medical"]["precision"] == pytest.approx(0.9)
    assert column["latency_ms"]["texts"] == 40
    assert column["reasons"] == {"classified": 40}
    assert report["data"][0]["file"] == str(data)
    assert report["versions"]["python"]
    printed = capsys.readouterr().out
    assert "accuracy                       0.900 [" in printed
    assert "My knee is swollen" in printed
    assert "How do I bake bread" in (next(out.iterdir()) / "report.html").read_text(encoding="utf-8")
    assert "bake bread" not in json.dumps(report)
    # A second report leaves the first alone.
    assert main(["routing", str(data), "--config", str(stack_file), "--out", str(out)]) == 0
    assert len(list(out.iterdir())) == 2


def test_conversations_are_judged_as_the_router_does(tmp_path: Path, stack_file: Path) -> None:
    stack = load(stack_file)
    turns = ["Can my landlord evict me without a court order?", "And how soon?"]
    messages = [
        {"role": "user", "content": turns[0]},
        {
            "role": "assistant",
            "content": "He needs a court order. Is it about your mortgage, your loan, or taxes?",
        },
        {"role": "user", "content": turns[1]},
    ]
    (row,) = load_rows(
        [write_rows(tmp_path / "talk.jsonl", [{"messages": messages, "label": "legal"}])], stack
    ).rows
    assert row.words.turns == tuple(turns)
    assert row.source == "talk"
    texts = texts_of([row], stack.router.system_weight)
    assert texts == turns
    judge = real_judge(stack, texts)
    assert judge.outcomes([row]).correct.all()


def real_judge(stack: Stack, texts: Sequence[str]) -> Judge:
    records = {name: record(name, each, texts) for name, each in load_classifiers(stack).items()}
    return Judge(stack, [Stage.of(each, stack.router.calibrated(name)) for name, each in records.items()])


def test_fit_stores_two_scalars_and_shows_before_and_after(
    tmp_path: Path, stack_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stack_file.read_text(encoding="utf-8")
    stack_file.write_text(f"# my stack\n{before}# the end\n", encoding="utf-8")
    digest = hashlib.sha256(stack_file.read_bytes()).hexdigest()
    data = write_rows(tmp_path / "data.jsonl", [*MISLABELLED, *clear_rows()])
    out = tmp_path / "reports"
    assert main(["routing", str(data), "--config", str(stack_file), "--fit", "--out", str(out)]) == 0
    report = results(out)
    titles = [column["title"] for column in report["columns"]]
    assert titles == ["embedding, before", "embedding, fitted"]
    assert report["rows_fitted_on"] + report["columns"][0]["rows"] == 40
    assert report["stack"]["sha256"] == digest
    calibration = load(stack_file).router.calibrated("embedding")
    assert calibration.model_dump() == report["columns"][1]["calibration"]["embedding"]
    assert calibration.temperature != 1
    lines = stack_file.read_text(encoding="utf-8").splitlines()
    added = [line for line in lines if line not in ("# my stack", *before.splitlines(), "# the end")]
    assert len(added) == 2
    assert [line for line in lines if line not in added] == ["# my stack", *before.splitlines(), "# the end"]
    assert "embedding: {temperature: " in capsys.readouterr().out


def test_of_the_router_only_what_decides_is_used() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "evaluation").rglob("*.py"))
    used = set(re.findall(r"^\s*(?:from|import) ((?:router|serve|ui|training|demo|benchmarks)[\w.]*)", code, re.M))
    weights = "router.classify.encoder"  # where MiniLM lies, for BERTScore
    assert used == {"router.choose", "router.classify", "router.classify.scorer", "router.conversation", weights}


def test_importing_the_command_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'onnxruntime'}"
    script = f"import sys, evaluation.__main__; sys.exit(' '.join({heavy} & {{*sys.modules}}) or 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- rows -------------------------------------------------------------------------------------------------------


def test_bad_rows_are_named_by_line_and_counted(
    tmp_path: Path, stack_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "mixed.jsonl"
    good = json.dumps(
        {"text": "Who painted the Mona Lisa?\u2028And when?", "label": "general"}, ensure_ascii=False
    )
    bad: dict[str | bytes, str] = {
        "{": "not JSON",
        b"\xff\xfe": "not UTF-8",
        "[" * 100_000: "nested too deep",
        "7": "expected an object",
        '{"text": "a"}': '"label" is missing; valid: general, base, legal, medical, finance',
        '{"text": "a", "label": "sports"}': 'no adapter of the stack is named "sports"; valid: general, base',
        '{"text": "a", "label": "legal", "also": ["sports"]}': '"also": no adapter of the stack is named "sports"',
        '{"text": "a", "label": "legal", "also": "medical"}': '"also" must be a list',
        '{"label": "legal"}': 'either "text" or "messages" (got neither)',
        '{"text": "a", "messages": [], "label": "legal"}': "(got text and messages)",
        '{"text": 3, "label": "legal"}': '"text" must be text (got 3)',
        '{"text": " ", "label": "legal"}': '"text" is blank',
        '{"text": "\\ud800", "label": "legal"}': '"text" is blank',
        '{"messages": "a", "label": "legal"}': '"messages" must be a list',
        '{"messages": [{"role": "assistant", "content": "a"}], "label": "legal"}': "no words of the role",
        '{"text": "a", "label": "legal", "source": 7}': '"source" must be a word (got 7)',
        '{"text": "a", "label": "legal", "source": "\\ud800"}': '"source" must be a word (got "\\ud800")',
        '{"text": "a", "label": "\\ud800"}': 'no adapter of the stack is named "\\ud800"',
    }
    lines = [line.encode() if isinstance(line, str) else line for line in bad]
    data.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good.encode(), b"", *lines, b""]))
    found = load_rows([data], load(stack_file))
    assert [row.line for row in found.rows] == [1]
    assert [problem.line for problem in found.problems] == list(range(3, 3 + len(bad)))
    for problem, said in zip(found.problems, bad.values(), strict=True):
        assert str(problem).startswith(f"{data}: line {problem.line}: ")
        assert said in str(problem)
    # The command names them and goes on with the rest.
    assert main(["routing", str(data), "--config", str(stack_file), "--out", str(tmp_path / "reports")]) == 0
    said = capsys.readouterr().err
    assert f"{data}: line 3: not JSON" in said
    assert f"{len(bad)} of {len(bad) + 1} rows left out" in said
    assert len(results(tmp_path / "reports")["rows_left_out"]) == len(bad)


def test_labels_name_the_base_in_three_ways_and_others_may_be_right_too(tmp_path: Path, stack_file: Path) -> None:
    rows = [
        {"text": label, "label": label, "also": ["legal"], "source": "s"}
        for label in ("general", "base", "medical")
    ]
    found = load_rows([write_rows(tmp_path / "a.jsonl", rows)], load(stack_file)).rows
    assert [row.label for row in found] == ["base", "base", "medical"]
    assert found[2].accepted == {"medical", "legal"}
    assert found[0].place == f"{tmp_path.name}/a.jsonl:1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["routing", "empty.jsonl"], "empty.jsonl: holds no usable row; a row is {"),
        (["routing", "bad.jsonl"], "bad.jsonl: holds no usable row; bad.jsonl: line 1: not JSON"),
        (["routing", "missing.jsonl"], "missing.jsonl: cannot be read: No such file"),
        (["routing", "good.jsonl", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["routing", "good.jsonl", "--config", "gone.yaml"], "gone.yaml: no such file"),
        (["routing", "good.jsonl", "--out", "good.jsonl"], "--out good.jsonl: cannot be written"),
        (["routing", "missing.jsonl", "--out", "/proc"], "--out /proc: cannot be written"),
        (["routing", "missing\udcff.jsonl"], "the arguments are not UTF-8"),
        (
            ["routing", "good.jsonl", "--classifier", "scoring"],
            "router.classifier: scoring does not work: Unreachable: http://127.0.0.1:1/tokenize cannot be asked: ",
        ),
        (["routing", "good.jsonl", "--fit"], "--fit: "),
        (["routing", "good.jsonl", "--classifier", "magic"], 'no classifier "magic"; there are embedding, nli'),
    ],
)
def test_what_cannot_work_exits_with_2_and_one_line(
    tmp_path: Path,
    stack_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = stack_file.read_bytes()
    Path("empty.jsonl").touch()
    Path("bad.jsonl").write_text("{\n", encoding="utf-8")
    write_rows(Path("good.jsonl"), [{"text": "Can I sue my landlord?", "label": "legal"}] * 5)
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert stack_file.read_bytes() == before
    assert not list(Path().glob("reports/*"))


# --- a classifier that fails, or is late -----------------------------------------------------------------------


@dataclass
class MoodyEngine(ScriptedEngine):
    """Says nothing to one of the requests, and fails on a word."""

    silent_at: int = -1
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += scope["type"] == "http"
        self.failing = {scope["path"]: (200, b"?")} if self.asked == self.silent_at else {}
        await super().__call__(scope, receive, send)

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert "poison" not in body.get("prompt", "")
        return super().answer(path, body)


def test_a_text_that_fails_is_decided_by_the_base_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"my landlord": "legal", "a poison": "medical", "my health": "medical", "the poison of Rome": "base"}
    data = write_rows(tmp_path / "data.jsonl", [{"text": text, "label": label} for text, label in texts.items()])
    out = tmp_path / "reports"
    with serving(MoodyEngine()) as url:
        stack_file = write_stack(tmp_path, url, {"legal": {"label": "law, landlord"}}, classifier="scoring")
        assert main(["routing", str(data), "--config", str(stack_file), "--out", str(out)]) == 0
    (column,) = results(out)["columns"]
    assert column["reasons"] == {"classified": 2, "classifier-error": 2}
    assert column["accuracy"]["value"] == 0.75
    assert sum(each["rows"] for each in column["reliability"]) == 2
    said = capsys.readouterr()
    place = f"{tmp_path.name}/data.jsonl:2"
    assert f"scoring: failed on 2 of 4 texts; {place}: EngineError: {url}/tokenize answered 500" in said.err
    assert "classifier-error  2 (50.0%)" in said.out
    assert "poison" not in (next(out.iterdir()) / "report.html").read_text(encoding="utf-8")


def test_a_run_that_was_cut_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["my landlord", "a poison", "my health", "a lawsuit"]  # one of them fails, and is asked again
    data = write_rows(tmp_path / "data.jsonl", [{"text": text, "label": "base"} for text in texts])
    out, engine = tmp_path / "reports", MoodyEngine()
    with serving(engine) as url:
        stack_file = write_stack(tmp_path, url, {"legal": {"label": "law, landlord"}}, classifier="scoring")
        command = ["routing", str(data), "--config", str(stack_file), "--out", str(out)]
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
            with pytest.raises(ModuleNotFoundError):
                main(command)
        (kept,) = out.glob(".judged-*.jsonl")
        assert "landlord" not in kept.read_text(encoding="utf-8")
        (cut_off,) = (each for each in out.iterdir() if each.is_dir())
        shutil.rmtree(cut_off)
        first, engine.asked = engine.asked, 0
        assert main(command) == 0
    assert 0 < engine.asked < first
    assert "goes on: 3 texts are judged already" in capsys.readouterr().err
    (column,) = results(out)["columns"]
    assert column["reasons"] == {"classified": 3, "classifier-error": 1}
    assert column["latency_ms"]["texts"] == 3


def test_an_engine_that_is_silent_once_loses_nothing(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(30)]
    engine = MoodyEngine()
    with serving(engine) as url:
        (classifier,) = load_classifiers(load(write_stack(tmp_path, url, classifier="scoring"))).values()
        classifier.logits(["How are you?"])
        engine.silent_at = engine.asked + 20
        recorded = record("scoring", classifier, texts)
    assert engine.asked > engine.silent_at
    assert set(recorded.logits) == set(recorded.ms) == set(texts)
    assert not recorded.failed


def test_late_and_failed_texts_are_decided_as_the_router_does(tmp_path: Path) -> None:
    stack = load(write_stack(tmp_path, "http://127.0.0.1:1", classify_timeout_s=0.04))
    talk = [{"role": "user", "content": text} for text in ("unsure", "sure")]
    given: list[dict[str, object]] = [{"text": "sure"}, {"text": "unsure"}, {"messages": talk}]
    data = write_rows(tmp_path / "a.jsonl", [{**each, "label": "legal"} for each in given])
    rows = load_rows([data], stack).rows
    stages = [Stage(QUICK, 1.0, 0.6), Stage(SLOW, 1.0, 0.5)]
    late = Judge(stack, stages).outcomes(rows)
    assert late.reason.tolist() == ["classified", "classifier-timeout", "classifier-timeout"]
    assert late.chosen.tolist() == [1, 0, 0]
    assert len(late.scored) == 1
    assert Judge(stack, stages, timeout_s=1).outcomes(rows).reason.tolist()[:2] == ["classified", "classified"]
    without = replace(SLOW, logits={"sure": SLOW.logits["sure"]}, ms={"sure": 50.0})
    failed = Judge(stack, [stages[0], Stage(without, 1.0, 0.5)])
    assert failed.outcomes(rows).reason.tolist() == ["classified", "classifier-error", "classifier-error"]
    assert failed.latencies() == [1.0]


def test_a_report_in_which_every_text_is_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack_file = write_stack(tmp_path, "http://127.0.0.1:1", classify_timeout_s=1e-6)
    data = write_rows(tmp_path / "data.jsonl", clear_rows())
    out = tmp_path / "reports"
    assert main(["routing", str(data), "--config", str(stack_file), "--fit", "--out", str(out)]) == 0
    for column in results(out)["columns"]:
        assert column["reasons"] == {"classifier-timeout": column["rows"]}
        assert [column[name] for name in ("nll", "ece", "ece_equal_mass", "among_adapters")] == [None] * 4
    assert "classifier-timeout" in capsys.readouterr().out
    # The fit does not go by how fast this machine is.
    slow = load(stack_file).router.calibrated("embedding")
    stack_file = write_stack(tmp_path, "http://127.0.0.1:1")
    assert main(["routing", str(data), "--config", str(stack_file), "--fit", "--out", str(out)]) == 0
    assert load(stack_file).router.calibrated("embedding") == slow


def test_a_fit_wants_texts_that_were_judged(stack_file: Path, sure_and_unsure: tuple[Row, ...]) -> None:
    failed = Recorded({}, {}, {"sure": "no", "unsure": "no"})
    with pytest.raises(DataError, match="--fit: 0 rows to fit on were judged; it needs 10"):
        fitted(load(stack_file), failed, Calibration(threshold=0.5), sure_and_unsure)


# --- figures ----------------------------------------------------------------------------------------------------


def outcomes(scores: Floats, label: Sequence[int], threshold: float = 0.0) -> Outcomes:
    """Column 0 is the base; an adapter below the threshold loses to it."""
    chosen = scores.argmax(axis=1)
    chosen = np.where((chosen > 0) & (scores.max(axis=1) < threshold), 0, chosen)
    rows = np.arange(len(scores))
    accepted = np.zeros_like(scores, dtype=np.bool_)
    accepted[rows, label] = True
    reason = np.full(len(scores), Reason.CLASSIFIED)
    return Outcomes(np.array(label), accepted, scores, chosen, scores[rows, chosen], reason)


def test_every_row_is_right_wrong_or_missed() -> None:
    scores = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.7, 0.2, 0.1]])
    found = outcomes(scores, [0, 1, 2, 0, 2])
    assert found.correct.tolist() == [True, True, False, False, False]
    assert found.wrong.tolist() == [False, False, True, True, False]
    assert found.missed.tolist() == [False, False, False, False, True]
    assert found.points.tolist() == [1, 1, -1, -1, 0]
    assert metrics.among_adapters(found).tolist() == [True, False, False]
    assert metrics.confusion(found).tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 0]]
    assert metrics.precision(found, 1) == 0.5
    assert metrics.precision(outcomes(scores[:1], [0]), 1) is None
    assert metrics.nll(found).tolist() == pytest.approx(-np.log([0.6, 0.8, 0.1, 0.1, 0.1]))
    found.accepted[2, 1] = True
    assert found.correct[2]
    assert metrics.nll(found)[2] == pytest.approx(-np.log(0.9))


def test_ece_of_a_constructed_set() -> None:
    """Of 100 rows at 0.95, 80 are right; of 50 at 0.55, 40 are: (100 * 0.15 + 50 * 0.25) / 150."""
    confidence = np.repeat([0.95, 0.55], [100, 50])
    correct = np.concatenate([np.arange(100) < 80, np.arange(50) < 40])
    bins = metrics.equal_width(confidence, correct)
    assert [(each.rows, each.accuracy) for each in bins] == [(50, 0.8), (100, 0.8)]
    assert metrics.calibration_error(bins) == pytest.approx(27.5 / 150)
    assert metrics.calibration_error(metrics.equal_mass(confidence, correct, 3)) == pytest.approx(27.5 / 150)


@pytest.mark.parametrize("bins", [10, 15])
def test_ece_against_a_short_reference(bins: int) -> None:
    generator = np.random.default_rng(1)
    confidence, correct = generator.random(5000), generator.random(5000) < 0.6
    total = 0.0
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        total += abs(correct[inside].sum() - confidence[inside].sum())
    assert metrics.calibration_error(metrics.equal_width(confidence, correct, bins)) == pytest.approx(total / 5000)
    masses = metrics.equal_mass(confidence, correct, bins)
    assert {each.rows for each in masses} <= {5000 // bins, 5000 // bins + 1}
    assert metrics.equal_width(np.array([0.0, 1.0]), np.array([True, True]), bins)[0].low == 0


def test_bootstrap_intervals_are_seeded_and_as_wide_as_the_binomial() -> None:
    values = (np.arange(1000) < 900).astype(float)
    found = interval(lambda rows: float(values[rows].mean()), 1000)
    assert found == interval(lambda rows: float(values[rows].mean()), 1000)
    half = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert (found.low, found.high) == pytest.approx((0.9 - half, 0.9 + half), abs=0.003)


def softmax(logits: Floats) -> Floats:
    weights: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = weights / weights.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_fit_recovers_the_temperature_of_miscalibrated_logits(true: float) -> None:
    generator = np.random.default_rng(2)
    calibrated = generator.normal(size=(6000, 4)) * 2
    label = [int(generator.choice(4, p=row)) for row in softmax(calibrated)]
    logits = calibrated * true
    best = fit_temperature(lambda tried: float(metrics.nll(outcomes(softmax(logits / tried), label)).mean()))
    assert best == pytest.approx(true, rel=0.06)
    if true != 1:
        before = metrics.ece(outcomes(softmax(logits), label))
        assert metrics.ece(outcomes(softmax(logits / best), label)) < min(0.025, before / 3)


def test_the_threshold_is_where_a_wrong_adapter_costs_more_than_the_base() -> None:
    """At 0.3 an adapter is right in 3 rows of 10 and the base in none: 0.3 - 0.7 < 0, so it must not answer."""
    at = np.repeat([0.3, 0.8], 50)
    right = np.concatenate([np.arange(50) < 15, np.arange(50) < 40])

    def utility(threshold: float) -> float:
        return float(np.where(at >= threshold, np.where(right, 1, -1), 0).mean())

    assert 0.5 <= fit_threshold(utility) <= 0.6
    assert fit_threshold(lambda _: 0.0) == 0.5


def test_halves_go_by_the_text(tmp_path: Path, stack_file: Path) -> None:
    rows = [{"text": f"text {number}", "label": "legal"} for number in range(200)]
    first = load_rows([write_rows(tmp_path / "a.jsonl", rows)], load(stack_file)).rows
    again = load_rows([write_rows(tmp_path / "b.jsonl", rows[::-1])], load(stack_file)).rows
    fitting, unseen = halves(first)
    assert 70 < len(fitting) < 130
    assert {row.text for row in fitting} == {row.text for row in halves(again)[0]}
    assert not any(seen(row.text) for row in unseen)


NONE = dict.fromkeys(("base", "legal", "medical", "finance"), 0.0)
QUICK = Recorded({"sure": NONE | {"legal": 9.0}, "unsure": NONE | {"legal": 0.1}}, {"sure": 1.0, "unsure": 1.0})
SLOW = Recorded(
    {"sure": NONE | {"finance": 9.0}, "unsure": NONE | {"medical": 9.0}}, {"sure": 50.0, "unsure": 50.0}
)


@pytest.fixture
def sure_and_unsure(tmp_path: Path, stack_file: Path) -> tuple[Row, ...]:
    texts = [{"text": "sure", "label": "legal"}, {"text": "unsure", "label": "medical"}]
    return load_rows([write_rows(tmp_path / "a.jsonl", texts)], load(stack_file)).rows


def test_in_a_row_of_classifiers_the_next_is_asked_while_one_is_unsure(
    stack_file: Path, sure_and_unsure: tuple[Row, ...]
) -> None:
    rows, stack = sure_and_unsure, load(stack_file)
    both = Judge(stack, [Stage(QUICK, 1.0, 0.6), Stage(SLOW, 1.0, 0.5)])
    assert both.outcomes(rows).correct.all()
    assert sorted(both.latencies()) == [1.0, 51.0]
    assert not Judge(stack, [Stage(QUICK, 1.0, 0.6)]).outcomes(rows).correct.all()
    assert both.outcomes(rows, threshold=1.0).chosen.tolist() == [0, 0]


def test_an_unsure_row_is_the_bases_whoever_answers_it(stack_file: Path, sure_and_unsure: tuple[Row, ...]) -> None:
    text = stack_file.read_text(encoding="utf-8").replace("lag: null", "lag: {library: all}")
    stack_file.write_text(text.replace("router:", "router:\n  unsure: lag"), encoding="utf-8")
    outcomes = Judge(load(stack_file), [Stage(QUICK, 1.0, 0.6)]).outcomes(sure_and_unsure)
    assert outcomes.chosen.tolist() == [1, 0]
    assert outcomes.reason.tolist() == ["classified", "below-threshold"]


def test_in_a_row_of_classifiers_each_decides_by_its_own_threshold(
    stack_file: Path, sure_and_unsure: tuple[Row, ...]
) -> None:
    """The first is sure of its row, the second never: that is what the plot shows as present."""
    calibrations: dict[ClassifierName, Calibration] = {
        "embedding": Calibration(threshold=0.6),
        "nli": Calibration(threshold=1.0),
    }
    *_, both = columns(load(stack_file), {"embedding": QUICK, "nli": SLOW}, calibrations, sure_and_unsure)
    figure = Figure()
    plots._coverage(figure, [both.figures()])
    left, right = figure.axes
    dots = [np.array(line.get_data()).ravel().tolist() for line in right.lines if line.get_marker() == "o"]
    assert dots == [[0.5, 1.0]]
    assert [line.get_xdata() for line in left.lines[3:]] == [[0.6, 0.6], [1.0, 1.0]]


def test_another_classifier_keeps_the_weights_of_the_stacks_own(stack_file: Path) -> None:
    text = stack_file.read_text(encoding="utf-8").replace(
        "router:", "router:\n  classifier: nli\n  model: some/nli"
    )
    stack_file.write_text(text, encoding="utf-8")
    stack = with_classifiers(load(stack_file), ("embedding", "nli"))
    assert stack.router.classifier == ("embedding", "nli")
    assert (stack.router.weights("embedding"), stack.router.weights("nli")) == (None, "some/nli")


# --- the stored scalars -----------------------------------------------------------------------------------------

FITTED = Calibration(temperature=0.83, threshold=0.52)
FLOW = "{temperature: 0.83, threshold: 0.52}"
NESTED = "router:\n  calibration:\n    embedding:\n"
HEAD = "# a stack\nbase: {model: a/b,   name: base}\nadapters:\n  legal: {path: 'a/b', label: law} # l\n"
ADDED = f"  calibration:\n    embedding: {FLOW}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"router:\n{ADDED}"),
        ("router:   # mine\n  # port: 8000\n", f"router:   # mine\n{ADDED}  # port: 8000\n"),
        ("router: null # none\n", f"router: # none\n{ADDED}"),
        ("router: {}\n", f"router: {{calibration: {{embedding: {FLOW}}}}}\n"),
        ("router: {port:  9000}\n", f"router: {{calibration: {{embedding: {FLOW}}}, port:  9000}}\n"),
        ("router:\n  port:   9000 # p\n\n  # c\n", f"router:\n  port:   9000 # p\n{ADDED}\n  # c\n"),
        (
            "router:\n    classifier:\n    - nli # n\n    - embedding\n",
            f"router:\n    classifier:\n    - nli # n\n    - embedding\n    calibration:\n"
            f"      embedding: {FLOW}\n",
        ),
        (
            "router:\n  calibration:\n    nli: {temperature: 2} # n\n",
            f"router:\n  calibration:\n    nli: {{temperature: 2}} # n\n    embedding: {FLOW}\n",
        ),
        (
            f"{NESTED}      # why\n      threshold: 0.9 # t\n      temperature: 2\n",
            f"{NESTED}      # why\n      threshold: 0.52 # t\n      temperature: 0.83\n",
        ),
        (
            f"{NESTED}      threshold: # t\n      temperature: 2\n",
            f"{NESTED}      threshold: 0.52 # t\n      temperature: 0.83\n",
        ),
        (
            "router:\n  calibration: {embedding: {'threshold':}}\n",
            "router:\n  calibration: {embedding: {temperature: 0.83, 'threshold': 0.52}}\n",
        ),
        ("router:\r\n  port: 9000\r\n", "router:\r\n  port: 9000\r\n" + ADDED.replace("\n", "\r\n")),
    ],
)
def test_only_the_two_scalars_change(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "adapters.yaml"
    file.write_bytes((HEAD + before).encode())
    file.chmod(0o640)
    store(file, {"embedding": FITTED})
    assert file.read_bytes().decode() == HEAD + after
    assert load(file).router.calibrated("embedding") == FITTED
    assert file.stat().st_mode & 0o777 == 0o640
    again = Calibration(temperature=1.5, threshold=0.0)
    store(file, {"embedding": again})
    assert load(file).router.calibrated("embedding") == again
    assert file.read_text(encoding="utf-8").count("\n") == (HEAD + after).count("\n")


@pytest.mark.parametrize("name", ["adapters.yaml", "demo/adapters.yaml"])
def test_the_stacks_of_this_project_change_by_two_lines_at_most(name: str) -> None:
    before = (ROOT / name).read_text(encoding="utf-8").splitlines()
    after = edited("\n".join(before) + "\n", "embedding", FITTED).splitlines()
    assert len([line for line in after if line not in before]) <= 2
    assert len([line for line in before if line not in after]) <= 2


def test_a_stack_that_cannot_be_written_is_left_as_it_was(
    tmp_path: Path, stack_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "data.jsonl", clear_rows())
    before = stack_file.read_bytes()

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert main(["routing", str(data), "--config", str(stack_file), "--fit", "--out", str(tmp_path / "out")]) == 2
    assert "cannot be written: No space left on device; it is as it was" in capsys.readouterr().err
    assert stack_file.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"adapters.yaml", "data.jsonl", "out"}
    assert [column["title"] for column in results(tmp_path / "out")["columns"]] == [
        "embedding, before", "embedding, fitted",
    ]  # fmt: skip


def test_without_its_report_a_fit_is_not_stored(
    tmp_path: Path, stack_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rows(tmp_path / "data.jsonl", clear_rows())
    before = stack_file.read_bytes()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError):
        main(["routing", str(data), "--config", str(stack_file), "--fit", "--out", str(tmp_path / "out")])
    assert stack_file.read_bytes() == before


@pytest.mark.parametrize("embedding", ["&one {temperature: 2}\n    nli: *one", "{threshold}"])
def test_what_cannot_be_edited_safely_is_said_whichever_classifier_comes_first(
    tmp_path: Path, embedding: str
) -> None:
    file = tmp_path / "adapters.yaml"
    text = f"{HEAD}router:\n  calibration:\n    embedding: {embedding}\n"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"put there by hand: router\.calibration: \{embedding: .*, nli: "):
        store(file, {"embedding": FITTED, "nli": FITTED})
    assert file.read_text(encoding="utf-8") == text


# --- the bars, on public data that only developers have ---------------------------------------------------------

SHARED = ROOT.parent / "shared" / "data"
STACK = ROOT / "demo" / "adapters.yaml"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the public test data is not part of this repository")


@dataclass(frozen=True, repr=False)
class Real:
    """Without a repr, in which a failed test would quote the texts."""

    stack: Stack
    records: dict[ClassifierName, Recorded]
    rows: dict[str, tuple[Row, ...]]


@pytest.fixture(scope="module")
def real() -> Real:
    """The demo's stack, with the texts of all four files judged once."""
    stack = load(STACK)
    files = {
        "dev": "routing/dev.jsonl",
        "hard": "routing/hard_general_dev.jsonl",
        "ambiguous": "routing/ambiguous_dev.jsonl",
        "multiturn": "multiturn/dev.jsonl",
    }
    rows = {name: load_rows([SHARED / file], stack).rows for name, file in files.items()}
    texts = texts_of([row for each in rows.values() for row in each], stack.router.system_weight)
    records = {name: record(name, each, texts) for name, each in load_classifiers(stack).items()}
    return Real(stack, records, rows)


def as_it_stands(real: Real, name: str) -> Outcomes:
    stack = real.stack
    stages = [Stage.of(each, stack.router.calibrated(classifier)) for classifier, each in real.records.items()]
    return Judge(stack, stages).outcomes(real.rows[name])


def weakest_source(real: Real) -> float:
    correct = as_it_stands(real, "dev").correct
    sources = np.array([row.source for row in real.rows["dev"]])
    return min(float(correct[sources == source].mean()) for source in set(sources))


def unseen_ece(real: Real) -> float:
    """Fitted on one half of dev, measured on the other."""
    fitting, unseen = halves(real.rows["dev"])
    (name, recorded), *_ = real.records.items()
    calibration = fitted(real.stack, recorded, real.stack.router.calibrated(name), fitting)
    return metrics.ece(Judge(real.stack, [Stage.of(recorded, calibration)]).outcomes(unseen))


BARS: dict[str, tuple[float, Callable[[Real], float]]] = {
    "dev": (0.95, lambda real: as_it_stands(real, "dev").correct.mean()),
    "weakest source of dev": (0.80, weakest_source),
    "dev, among the domains": (0.985, lambda real: metrics.among_adapters(as_it_stands(real, "dev")).mean()),
    "hard general": (0.70, lambda real: as_it_stands(real, "hard").correct.mean()),
    "multi-turn": (0.85, lambda real: as_it_stands(real, "multiturn").correct.mean()),
    "ambiguous": (0.95, lambda real: as_it_stands(real, "ambiguous").correct.mean()),
}
ECE_BAR = 0.04


@needs_data
@pytest.mark.parametrize("bar", BARS)
def test_accuracy_on_real_data(real: Real, bar: str) -> None:
    least, figure = BARS[bar]
    reached = round(float(figure(real)), 4)
    assert reached >= least


@needs_data
@pytest.mark.parametrize(
    "figure", [lambda real: metrics.ece(as_it_stands(real, "dev")), unseen_ece], ids=["stored", "unseen"]
)
def test_calibration_on_real_data(real: Real, figure: Callable[[Real], float]) -> None:
    reached = round(float(figure(real)), 4)
    assert reached <= ECE_BAR

"""Replay: logs that the real router wrote, decided again; what the scores alone can tell; feedback as data."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters import Stack, load
from evaluation.__main__ import main
from evaluation.replay import log as logs
from evaluation.replay.decide import Ask, Left, Records, Replayed, margin, replay
from evaluation.replay.log import Broken, Entry, Said, Scalars, Signature, Span
from evaluation.replay.plots import MOST, OTHERS, grouped
from evaluation.replay.settings import Scores, Settings, Why, from_scores, with_threshold
from evaluation.replay.verdicts import Feedback, Labelled, Opinion, Unwritten, Verdict, verdict
from evaluation.routing.judge import Recorded, record
from evaluation.routing.rows import load_rows
from router.choose import Decision, Policy, Reason, choose, probabilities
from router.classify import load_classifiers
from router.classify.scorer import signature
from router.conversation import Words
from router.decide import Routed
from router.decision_file import ADDED
from router.decisions import DecisionLog
from router.life import Life
from tests.conftest import GENERAL, LEGAL, Wire, chat, wired, write_stack

MEDICAL = "I have had a fever and a sore throat for three days."
FINANCE = "Should I refinance my mortgage at a lower interest rate?"
HOSTILE = "<script>alert(1)</script> can my landlord evict me from court?"
CONVERSATION = [
    {"role": "system", "content": "You help tenants with the law."},
    {"role": "user", "content": LEGAL},
    {"role": "assistant", "content": "It depends."},
    {"role": "user", "content": "and in Spain?"},
]
OTHER_LABELS = {
    "legal": {"label": "cooking, recipes and baking"},
    "medical": {"label": "law, courts, landlords"},
}


@dataclass(frozen=True)
class Logged:
    """A log that a router wrote, and the stack that it had."""

    file: Path
    config: Path


def ask_router(wire: Wire) -> None:
    texts = {"legal": LEGAL, "medical": MEDICAL, "finance": FINANCE, "general": GENERAL, "hostile": HOSTILE}
    for name, text in texts.items():
        assert wire.post(body=chat(text), x_request_id=name)[0] == 200
    wire.post(body={"model": "auto", "messages": CONVERSATION}, x_request_id="conversation")
    wire.post(body=chat(LEGAL, model="medical"), x_request_id="named")
    wire.post(body=chat("  "), x_request_id="blank")
    wire.post(body=chat(LEGAL, test="fail"), x_request_id="fell-back")
    assert wire.post(body=chat(LEGAL, model="nobody"), x_request_id="unknown-model")[0] == 404
    for said in (
        {"request_id": "legal", "rating": "up"},
        {"request_id": "medical", "adapter": "medical"},
        {"request_id": "finance", "rating": "down"},
        {"request_id": "general", "adapter": "general"},
        {"request_id": "conversation", "adapter": "legal", "rating": "down"},
        {"request_id": "hostile", "adapter": "cooking"},
        {"request_id": "named", "comment": "no verdict"},
    ):
        assert wire.post("/feedback", said)[0] == 200


def written(folder: Path, **router: Any) -> Logged:
    with wired(folder, decision_log="decisions.db", **router) as wire:
        ask_router(wire)
        return Logged(folder / "decisions.db", wire.stack.file)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """As by default: of texts, the log has a SHA-256."""
    return written(tmp_path_factory.mktemp("private"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """With `router.log_prompts`."""
    return written(tmp_path_factory.mktemp("kept"), log_prompts=True)


@dataclass(frozen=True)
class Report:
    """What a run of the command made."""

    folder: Path
    results: Any
    printed: str

    @property
    def flow(self) -> dict[tuple[str, str], int]:
        return {(each["from"], each["to"]): each["requests"] for each in self.results["flow"]}


def run(
    logged: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, config: Any = None
) -> Report:
    out = tmp_path / "reports"
    capsys.readouterr()
    code = main(["replay", str(logged.file), "--config", str(config or logged.config), "--out", str(out), *more])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    (folder,) = out.iterdir()
    return Report(folder, json.loads((folder / "results.json").read_text(encoding="utf-8")), printed.out)


# --- logs that the real router wrote ----------------------------------------------------------------------------


def test_under_its_own_settings_nothing_changes(
    private: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(private, tmp_path, capsys)
    results = report.results
    assert (results["rows"], results["decided_again"], results["asked_again"]) == (10, 7, 0)
    assert results["changed"] == 0
    assert results["not_decided_again"] == {"named": 1, "no_text": 1}
    assert results["ended_before_a_decision"] == 1
    assert report.flow[("legal", "legal")] == 4, "one of them fell back to the base, and had been the adapter's"
    assert {file.name for file in report.folder.iterdir()} == {
        "report.html", "results.json", "flow.png", "traffic.png",
    }  # fmt: skip
    assert results["settings"] == results["logged_under"][0]["settings"]


@pytest.mark.parametrize("book", ["private", "kept"])
def test_scores_are_enough_for_another_threshold(
    book: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(request.getfixturevalue(book), tmp_path, capsys, "--threshold", "1")
    assert report.results["asked_again"] == 0
    assert {after for _, after in report.flow} == {"base"}
    assert report.results["changed"] == 6
    assert report.results["feedback"]["verdicts"] == {
        "fixed": 0, "broken": 3, "still_right": 1, "still_wrong": 1, "moved": 1,
    }  # fmt: skip


def test_another_label_needs_the_words(
    private: Logged, kept: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_stack(tmp_path, "http://127.0.0.1:1", OTHER_LABELS)
    blind = run(private, tmp_path / "a", capsys, config=other)
    assert blind.results["decided_again"] == 0
    assert blind.results["not_decided_again"]["other_labels"] == 7
    assert "other labels, adapters or classifier weights judged it" in blind.printed
    assert "router.log_prompts" in (blind.folder / "report.html").read_text(encoding="utf-8")
    seeing = run(kept, tmp_path / "b", capsys, config=other)
    assert (seeing.results["decided_again"], seeing.results["asked_again"]) == (7, 7)
    assert seeing.flow[("legal", "medical")] >= 3


def test_a_text_that_is_judged_again_is_decided_as_a_router_decides_it(kept: Logged, tmp_path: Path) -> None:
    """Conversations and system prompts included: a second router is asked the same, and the two logs compared."""
    (tmp_path / "live").mkdir()
    with wired(tmp_path / "live", OTHER_LABELS, decision_log="decisions.db", threshold=0.4) as wire:
        ask_router(wire)
    with logs.reading(tmp_path / "live" / "decisions.db") as database:
        live = {row.request_id: row for row in logs.entries(database, Span()) if isinstance(row, Entry)}
    settings = Settings.of(wire.stack)
    with logs.reading(kept.file) as database:
        rows = list(replay(logs.entries(database, Span()), settings, asking(wire.stack)))
    found = {row.entry.request_id: row for row in rows if isinstance(row, Replayed)}
    assert len(found) == 7
    for name, row in found.items():
        if name != "fell-back":
            assert row.asked
            assert (row.after.model, row.after.reason) == (live[name].model, live[name].reason)
            assert row.after.score == pytest.approx(live[name].score, abs=1e-4)


def asking(stack: Stack) -> Ask:
    return lambda texts: {name: record(name, each, texts) for name, each in load_classifiers(stack).items()}


def test_a_new_adapter_and_one_that_is_gone(
    kept: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_stack(tmp_path, "http://127.0.0.1:1", {"astronomy": {"label": "planets, moons and stars"}})
    stack = yaml.safe_load(config.read_text(encoding="utf-8"))
    del stack["adapters"]["finance"]
    config.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
    report = run(kept, tmp_path, capsys, config=config)
    assert report.flow[("base", "astronomy")] == 1
    assert "finance" not in {after for _, after in report.flow}
    assert "finance" in {before for before, _ in report.flow}


def test_feedback_becomes_rows_that_routing_reads(
    kept: Logged, private: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "feedback.jsonl"
    report = run(kept, tmp_path / "a", capsys, "--labelled", str(file))
    assert "4 labelled rows" in report.printed
    assert report.results["feedback"]["not_labelled"] == {"thumb_down": 1, "unknown": 1}
    data = load_rows([file], load(kept.config))
    assert not data.problems
    assert {(row.words, row.label, row.source) for row in data.rows} == {
        (Words((LEGAL,)), "legal", "feedback"),
        (Words((MEDICAL,)), "medical", "feedback"),
        (Words((GENERAL,)), "base", "feedback"),
        (Words((LEGAL, "and in Spain?"), "You help tenants with the law."), "legal", "feedback"),
    }
    blind = run(private, tmp_path / "b", capsys, "--labelled", str(tmp_path / "none.jsonl"))
    assert blind.results["feedback"]["labelled"] == 0
    assert blind.results["feedback"]["not_labelled"]["no_text"] == 4
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_texts_stand_in_the_page_alone_and_are_no_html(
    kept: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(kept, tmp_path, capsys, "--threshold", "1")
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "landlord" not in (report.folder / "results.json").read_text(encoding="utf-8")
    assert [each["margin"] for each in report.results["closest"]] == sorted(
        each["margin"] for each in report.results["closest"]
    )


def test_a_log_is_read_while_it_is_written_and_not_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_stack(tmp_path, "http://127.0.0.1:1")
    file = tmp_path / "decisions.db"
    log = DecisionLog(file)
    log.ended([life(str(number)) for number in range(500)])
    log.recent(1).result(10)  # written, and in the WAL alone
    before = file.read_bytes()
    with logs.reading(file) as database:
        rows = logs.entries(database, Span())
        next(rows)
        log.ended([life("late")])
        assert log.recent(1).result(10)[0]["request_id"] == "late", "a reader holds no writer up"
        assert len(list(rows)) == 499
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("delete from decisions")
    assert run(Logged(file, config), tmp_path, capsys).results["rows"] == 501
    assert file.read_bytes() == before
    log.close()


# --- logs of a day ----------------------------------------------------------------------------------------------


def life(request_id: str, at: float | None = None, routed: Routed | None = None) -> Life:
    made = Life("/v1/chat/completions", request_id, admitted=True, status=200)
    made.at = time.time() if at is None else at
    made.routed = routed or routed_by(0.6)
    return made


def routed_by(probability: float, **more: Any) -> Routed:
    """To legal, where it is more probable than the base and reaches 0.5."""
    rest = (1 - probability) / 3
    scores = {"legal": probability, "base": rest, "medical": rest, "finance": rest}
    decision = choose(scores, Policy("base", 0.5))
    return Routed(decision, scores, 1.0, text_sha256="0" * 64, **{"texts": 1, **more})


def day(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ([], 4),
        (["--since", "2026-01-31", "--until", "2026-01-31"], 2),
        (["--since", "2026-01-31T12:00"], 2),
        (["--until", "2026-01-30"], 1),
        (["--until", "2026-02-01T00:00:00"], 3),
        (["--since", "2026-01-31T12:00", "--until", "2026-01-31T12:01"], 1),
    ],
)
def test_a_day_of_a_log(
    arguments: list[str], rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_stack(tmp_path, "http://127.0.0.1:1")
    times = ("2026-01-30T23:59:59", "2026-01-31T00:00", "2026-01-31T12:00", "2026-02-01T00:00")
    log = DecisionLog(tmp_path / "decisions.db")
    log.ended([life(each, day(each)) for each in times])
    log.close()
    report = run(Logged(tmp_path / "decisions.db", config), tmp_path, capsys, *arguments)
    assert report.results["rows"] == rows


def test_broken_rows_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = write_stack(tmp_path, "http://127.0.0.1:1"), tmp_path / "decisions.db"
    log = DecisionLog(file)
    log.ended([life(str(number)) for number in range(6)])
    log.close()
    with contextlib.closing(sqlite3.connect(file)) as database:
        for number, column, value in (
            (2, "scores", "{nonsense"), (3, "scores", '{"legal": 7}'), (4, "judged_by", "{}"), (5, "time", 1e300),
        ):  # fmt: skip
            database.execute(f"update decisions set {column} = ? where rowid = ?", (value, number))
        database.commit()
    assert main(["replay", str(file), "--config", str(config), "--out", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().err
    assert [number for number in range(1, 7) if f"row {number}: " in said] == [2, 3, 4, 5]
    assert "4 of 6 rows left out" in said


def old_log(file: Path, rows: Sequence[Life]) -> None:
    """As a router wrote it that did not log who judged."""
    assert tuple(ADDED) == logs.LATER
    log = DecisionLog(file)
    log.ended(rows)
    log.close()
    with contextlib.closing(sqlite3.connect(file)) as database:
        for name in ADDED:
            database.execute(f"alter table decisions drop column {name}")
        database.commit()


def test_a_log_of_an_older_router_is_replayed_under_an_assumption_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, file = write_stack(tmp_path, "http://127.0.0.1:1"), tmp_path / "decisions.db"
    old_log(file, [life("sure", routed=routed_by(0.9)), life("unsure", routed=routed_by(0.6))])
    report = run(Logged(file, config), tmp_path / "a", capsys, "--threshold", "0.7")
    assert report.flow == {("legal", "legal"): 1, ("legal", "base"): 1}
    assert report.results["assumed"] == 2
    assert "not logged (an older router)" in report.printed
    other = run(Logged(file, config), tmp_path / "b", capsys, "--classifier", "nli")
    assert other.results["not_decided_again"] == {"other_classifier": 2}


def test_an_older_log_gains_the_columns_when_a_router_opens_it(tmp_path: Path) -> None:
    file = tmp_path / "decisions.db"
    old_log(file, [life("old")])
    log = DecisionLog(file)
    log.ended([life("new", routed=routed_by(0.8, texts=2, earlier='{"turns":["a"],"system":""}'))])
    new, old = log.recent(2).result(10)
    log.close()
    assert (old["request_id"], old["texts"], old["earlier"], old["judged_by"]) == ("old", None, None, None)
    assert (new["request_id"], new["texts"], new["earlier"]) == ("new", 2, {"turns": ["a"], "system": ""})
    DecisionLog(file).close()


def faulty(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Name, what is said, arguments."""
    (folder / "plain.txt").write_text("no database" * 100, encoding="utf-8")
    for name, script in (
        ("other.db", "create table things (a)"),
        ("older.db", "create table decisions (time, request_id, key, text, model, reason, score);"
                     "create table feedback (time, request_id, key, adapter, rating)"),
    ):  # fmt: skip
        with contextlib.closing(sqlite3.connect(folder / name)) as database:
            database.executescript(script)
    DecisionLog(folder / "empty.db").close()
    log = DecisionLog(folder / "good.db")
    log.ended([life("one", day("2026-01-31T12:00"))])
    log.close()
    (folder / "taken.jsonl").touch()
    yield "missing.db", "missing.db: there is no such file", []
    yield ".", "is no file", []
    yield "plain.txt", "plain.txt: cannot be read as a decision log: file is not a database", []
    yield "other.db", 'other.db: is no decision log: it has no table "decisions"', []
    yield "older.db", 'older.db: is of an older router: "decisions" has no column "scores"', []
    yield "empty.db", "empty.db: holds no decision yet", []
    yield (
        "good.db",
        "holds no decision of that time; it has those from 2026-01-31T12:00:00",
        ["--since", "2026-02-01"],
    )
    yield "good.db", "taken.jsonl: there is such a file", ["--labelled", str(folder / "taken.jsonl")]
    yield "good.db", "cannot be written: No such file", ["--labelled", str(folder / "no" / "where.jsonl")]


def test_what_cannot_be_replayed_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_stack(tmp_path, "http://127.0.0.1:1")
    for name, says, more in faulty(tmp_path):
        out = tmp_path / "reports"
        arguments = ["replay", str(tmp_path / name), "--config", str(config), "--out", str(out), *more]
        assert main(arguments) == 2, name
        said = capsys.readouterr().err.strip()
        assert says in said
        assert "\n" not in said
        assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "yesterday"], "--since: must be a time like 2026-01-31"),
        (["--threshold", "1.5"], "--threshold: must be a number from 0 to 1 (got 1.5)"),
        (["--threshold", "nan"], "(got nan)"),
        (["--classifier", "oracle"], 'there is no classifier "oracle"'),
    ],
)
def test_arguments_that_mean_nothing(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["replay", "decisions.db", *arguments])
    assert says in capsys.readouterr().err


def test_labelled_rows_of_a_run_that_failed_are_not_left_behind(tmp_path: Path) -> None:
    config, file = write_stack(tmp_path, "http://127.0.0.1:1"), tmp_path / "rows.jsonl"
    DecisionLog(tmp_path / "empty.db").close()
    arguments = ["replay", str(tmp_path / "empty.db"), "--config", str(config), "--labelled", str(file)]
    assert main([*arguments, "--out", str(tmp_path / "r")]) == 2
    assert not file.exists()


# --- what the scores can tell -----------------------------------------------------------------------------------

A, B = Scalars("embedding", "a", 1.0, 0.5), Scalars("nli", "b", 1.0, 0.5)
SURE, UNSURE = {"legal": 0.8, "base": 0.15, "medical": 0.05}, {"legal": 0.45, "base": 0.35, "medical": 0.2}


def entry(scores: Any, *chain: Scalars, texts: int | None = 1, weight: float = 0.1, **more: Any) -> Entry:
    made = Signature(chain, weight) if chain else None
    return replace(Entry(1, 0.0, "id", "", "legal", "classified", 0.8, scores, None, texts, None, made), **more)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return load(write_stack(tmp_path_factory.mktemp("stack"), "http://127.0.0.1:1"))


def under(stack: Stack, *chain: Scalars, weight: float = 0.1, named: bool = False) -> Settings:
    return Settings(stack, Signature(chain, weight), named)


@pytest.mark.parametrize(
    ("logged", "chain", "expected"),
    [
        (entry(SURE, A), [A], 0.5),
        (entry(SURE, A), [replace(A, threshold=0.9)], 0.9),
        (entry(SURE, A), [replace(A, temperature=2.0)], 0.5),
        (entry(SURE, A), [B], Why.OTHER_CLASSIFIER),
        (entry(SURE, A), [replace(A, digest="c")], Why.OTHER_LABELS),
        (entry({}, A), [A], Why.NO_SCORES),
        (entry(SURE, A, texts=3), [replace(A, threshold=0.9)], 0.9),
        (entry(SURE, A, texts=3), [replace(A, temperature=2.0)], Why.CONVERSATION),
        (entry(SURE, A, texts=3, weight=0.2), [A], Why.CONVERSATION),
        (entry(SURE, A, texts=1, weight=0.2), [A], 0.5),
        # several in a row: sure at the first, asked no further, or asked the last
        (entry(SURE, A), [A, B], 0.5),
        (entry(SURE, A), [replace(A, threshold=0.9), B], Why.OTHER_CHAIN),
        (entry(UNSURE, A, B), [A, B], 0.5),
        (entry(UNSURE, A, B), [A, replace(B, threshold=0.4)], 0.4),
        (entry(UNSURE, A, B), [replace(A, threshold=0.6), B], 0.5),
        (entry(UNSURE, A, B), [replace(A, threshold=0.3), B], Why.OTHER_CHAIN),
        (entry(UNSURE, A, B), [replace(A, temperature=0.5), B], Why.OTHER_CHAIN),
        (entry(UNSURE, A, B), [A], Why.OTHER_CLASSIFIER),
        (entry(UNSURE, A, B, texts=2), [A, B], Why.CONVERSATION),
        # nothing is known of who judged
        (entry(SURE), [A], 0.5),
        (entry(SURE), [A, B], Why.OTHER_CHAIN),
        (entry({"legal": 0.8, "base": 0.1, "gone": 0.1}), [A], Why.OTHER_LABELS),
    ],
)
def test_scores_hold_or_it_is_said_why_not(
    stack: Stack, logged: Entry, chain: list[Scalars], expected: float | Why
) -> None:
    found = from_scores(logged, under(stack, *chain))
    assert (found if isinstance(found, Why) else found.threshold) == expected


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_another_temperature_is_that_of_the_logits(stack: Stack, temperature: float) -> None:
    logits = {"legal": 3.0, "base": 1.0, "medical": -200.0}
    logged = entry(probabilities(logits, logits, 1.7), replace(A, temperature=1.7))
    found = from_scores(logged, under(stack, replace(A, temperature=temperature)))
    assert isinstance(found, Scores)
    assert found.scores == pytest.approx(probabilities(logits, logits, temperature))


def test_a_threshold_is_for_all_classifiers(tmp_path: Path) -> None:
    stack = load(write_stack(tmp_path, "http://127.0.0.1:1", classifier=["embedding", "nli"],
                             calibration={"nli": {"temperature": 2}}))  # fmt: skip
    chain = Settings.of(with_threshold(stack, 0.7)).chain
    assert [(each.temperature, each.threshold) for each in chain] == [(1.0, 0.7), (2.0, 0.7)]
    assert Signature.read(signature(stack, ("embedding",))).chain == (replace(chain[0], threshold=0.5),)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"legal": 0.8, "base": 0.15, "medical": 0.05}, 0.3),
        ({"legal": 0.55, "base": 0.45, "medical": 0.0}, 0.05),
        ({"legal": 0.52, "base": 0.51, "medical": 0.0}, 0.01),
        ({"legal": 0.45, "base": 0.35, "medical": 0.2}, 0.05),
        ({"base": 0.6, "legal": 0.3, "medical": 0.1}, 0.3),
        ({"legal": 0.55, "base": 0.45}, 0.05),
        ({"base": 0.7, "legal": 0.3}, 0.2),
        ({"base": 1.0}, 1.0),
    ],
)
def test_a_margin_is_what_would_make_it_another_decision(scores: dict[str, float], expected: float) -> None:
    assert margin(scores, Policy("base", 0.5)) == pytest.approx(expected)


def unasked(texts: Sequence[str]) -> Records:
    raise AssertionError(f"a classifier is asked about {texts}")


def test_classifiers_are_asked_once_and_only_of_what_the_scores_leave_open(stack: Stack) -> None:
    asked: list[str] = []

    def ask(texts: Sequence[str]) -> Records:
        asked.extend(texts)
        logits = {"base": 0.0, "legal": 0.0, "medical": 9.0, "finance": 0.0}
        return {"embedding": Recorded({text: logits for text in texts if text != "fails"}, {})}

    said: dict[str, Any] = {"text": "a fever", "words": Words(("a fever",))}
    rows: list[Entry | Broken | None] = [
        entry(SURE, A),
        entry(SURE, replace(A, digest="other"), number=2, **said),
        entry({}, number=3, reason="classifier-timeout", model="base", texts=1, **said),
        entry(SURE, replace(A, digest="other"), number=4, words=Words(("fails",))),
        entry(SURE, replace(A, digest="other"), number=5),
        entry({}, number=6, reason="named", text=None),
        Broken(7, "x"),
        None,
    ]
    found = list(replay(rows, under(stack, A), ask))
    assert asked == ["a fever", "fails"]
    decided = {row.entry.number: row for row in found if isinstance(row, Replayed)}
    assert {number: row.after.model for number, row in decided.items()} == {
        1: "legal", 2: "medical", 3: "medical", 4: "base",
    }  # fmt: skip
    assert decided[4].after.reason is Reason.CLASSIFIER_ERROR
    assert [(row.entry.number, row.why) for row in found if isinstance(row, Left)] == [
        (5, Why.OTHER_LABELS), (6, Why.NAMED),
    ]  # fmt: skip
    assert len(found) == len(rows)


def test_who_is_unsure_is_the_virtual_models_but_not_where_tags_were_asked_for(tmp_path: Path) -> None:
    lag = {"blend": {"library": "all"}}
    stack = load(write_stack(tmp_path, "http://127.0.0.1:1", lag=lag, unsure="blend"))
    all_of_them = {"legal": 0.4, "base": 0.3, "medical": 0.2, "finance": 0.1}
    rows = [entry(all_of_them, A), entry({"legal": 0.4, "base": 0.35, "medical": 0.25}, A)]
    found = [row.after for row in replay(rows, under(stack, A), unasked) if isinstance(row, Replayed)]
    assert [each.model for each in found] == ["blend", "base"]
    assert {each.reason for each in found} == {Reason.BELOW_THRESHOLD}


# --- what people said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "opinion", "expected"),
    [
        ("base", "legal", Opinion("legal", None), Verdict.FIXED),
        ("legal", "base", Opinion("legal", None), Verdict.BROKEN),
        ("legal", "legal", Opinion("legal", None), Verdict.STILL_RIGHT),
        ("base", "medical", Opinion("legal", None), Verdict.STILL_WRONG),
        ("legal", "base", Opinion(None, True), Verdict.BROKEN),
        ("legal", "legal", Opinion(None, True), Verdict.STILL_RIGHT),
        ("legal", "legal", Opinion(None, False), Verdict.STILL_WRONG),
        ("legal", "base", Opinion(None, False), Verdict.MOVED),
    ],
)
def test_a_change_fixes_or_breaks(before: str, after: str, opinion: Opinion, expected: Verdict) -> None:
    found = Replayed(entry(SURE, A), before, Decision(after, 0.8, Reason.CLASSIFIED), 0.1)
    assert verdict(found, opinion) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], None),
        ([("", None, "up")], Opinion(None, True)),
        ([("", None, "up"), ("", None, "down")], Opinion(None, False)),
        ([("", "legal", "down"), ("", None, "up")], Opinion("legal", None)),
        ([("", "legal", None), ("", "medical", None)], Opinion("medical", None)),
        ([("", "legal@2", None)], Opinion("legal", None)),
        ([("", "general", None)], Opinion("base", None)),
        ([("", "nonsense", None)], Opinion("nonsense", None)),
        ([("another", "legal", None)], None),
        ([("admin", "legal", None)], Opinion("legal", None)),
    ],
)
def test_the_last_word_counts(
    stack: Stack, said: list[tuple[str, str | None, str | None]], expected: Opinion | None
) -> None:
    feedback = Feedback({"id": [Said(float(at), *one) for at, one in enumerate(said)]}, stack)
    assert feedback.of(entry(SURE, A)) == expected


def test_what_is_no_labelled_row_is_counted(stack: Stack) -> None:
    labelled = Labelled(Feedback({}, stack).models)
    text = entry(SURE, A, text="a", words=Words(("a",)))
    for logged, opinion in (
        (text, Opinion("legal", None)),
        (text, Opinion("legal", None)),
        (text, Opinion(None, False)),
        (text, Opinion("nobody", None)),
        (replace(text, reason="fallback", model="base"), Opinion(None, True)),
        (replace(text, model="blend"), Opinion(None, True)),
        (replace(text, text=None, words=None), Opinion(None, True)),
        (replace(text, words=None, texts=2), Opinion(None, True)),
    ):
        labelled.add(logged, opinion)
    assert labelled.written == 1
    assert labelled.unwritten == {
        Unwritten.AGAIN: 1, Unwritten.THUMB_DOWN: 1, Unwritten.UNKNOWN: 1, Unwritten.VIRTUAL: 2,
        Unwritten.NO_TEXT: 1, Unwritten.PART: 1,
    }  # fmt: skip


def test_of_many_models_those_that_change_have_their_own_line() -> None:
    flow = {(f"m{number}", f"m{number}"): 100 for number in range(40)} | {("m38", "m39"): 2}
    found, models = grouped(flow)
    assert len(models) == MOST
    assert {"m38", "m39", OTHERS} <= set(models)
    assert sum(found.values()) == sum(flow.values())
    assert found["m38", "m39"] == 2

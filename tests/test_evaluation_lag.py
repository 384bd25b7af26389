"""Evaluation of LAG: the synthetic world, the scale on which the oracle is 100, and what is drawn from it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from demo.knowledge.build import questions, stack
from demo.knowledge.facts import ADAPTERS, World, subjects, world
from evaluation.lag import plots, text
from evaluation.lag.ask import Answer, Asker
from evaluation.lag.command import write
from evaluation.lag.engine import Api, EngineError, lag_models
from evaluation.lag.figures import Figures, figures, of_gap, of_oracle
from evaluation.lag.methods import ARROW, BASE, ORACLE, Method, right
from evaluation.lag.tasks import NAMES, Question, read
from tests.stack import Running


@pytest.fixture(scope="module")
def made() -> World:
    return world()


# --- the world --------------------------------------------------------------------------------------------------


def test_the_world_is_the_same_every_time(made: World) -> None:
    assert world() == made
    assert world(seed=6) != made


def test_every_question_has_one_owner(made: World) -> None:
    for owners in made.libraries.values():
        assert len({owner.name for owner in owners}) == len(owners) == ADAPTERS
        asked = Counter(row["question"] for row in questions(owners))
        assert len(asked) == ADAPTERS * 30
        assert set(asked.values()) == {1}


def test_nobody_else_knows_the_towns(made: World) -> None:
    owners = [*(owner for library in made.libraries.values() for owner in library), made.public]
    homes = Counter(town for owner in owners for town in {fact.town for fact in owner.facts})
    assert set(homes.values()) == {1}


def test_no_adapter_is_trained_on_the_questions_for_measuring(made: World) -> None:
    for owners in made.libraries.values():
        taught = {asked.question for owner in owners for asked in owner.taught()}
        assert not taught & {row["question"] for row in questions(owners)}


def test_a_library_is_divided_by_subjects_or_by_towns(made: World) -> None:
    assert all(len({fact.subject.name for fact in owner.facts}) == 1 for owner in made.libraries["subjects"])
    lands = made.libraries["lands"]
    assert len({frozenset(fact.subject.name for fact in owner.facts) for owner in lands}) == 1
    assert all(town in owner.label for owner in lands for town in {fact.town for fact in owner.facts})


def test_every_subject_can_be_asked_and_answered() -> None:
    for subject in subjects():
        assert len(set(subject.questions)) == len(subject.questions) == 4
        assert all(question.count("{town}") == 1 for question in subject.questions)
        assert len(set(subject.values)) == len(subject.values) >= 12


def test_a_task_is_read_back(made: World, tmp_path: Path) -> None:
    owners = made.libraries["subjects"]
    folder = tmp_path / "subjects"
    folder.mkdir()
    (folder / "adapters.yaml").write_text(json.dumps(stack(owners)))
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in questions(owners)))
    (task,) = read("subjects", tmp_path, most=10)
    assert tuple(task.stack.adapters) == tuple(owner.name for owner in owners)
    assert set(Counter(question.adapter for question in task.questions).values()) == {10}
    assert len(set(task.questions)) == 10 * ADAPTERS


def test_the_demo_is_asked_what_its_loss_matrix_is_made_of(tmp_path: Path) -> None:
    unseen, trained = read("demo", tmp_path, most=10)
    assert len(unseen.questions) == len(trained.questions) == 3 * 34
    assert [each.answer for each in unseen.questions] == [each.answer for each in trained.questions]
    assert not {each.text for each in unseen.questions} & {each.text for each in trained.questions}
    assert {"demo", *world().libraries} == set(NAMES)


# --- the scale --------------------------------------------------------------------------------------------------


def test_the_oracle_is_a_hundred() -> None:
    assert of_oracle(0.9, oracle=0.9) == of_gap(0.2, base=2.2, oracle=0.2) == 100
    assert of_oracle(0.45, oracle=0.9) == pytest.approx(50)
    assert of_gap(1.2, base=2.2, oracle=0.2) == pytest.approx(50)
    assert of_gap(2.2, base=2.2, oracle=0.2) == 0
    assert of_gap(4.2, base=2.2, oracle=0.2) == pytest.approx(-100)


def test_k_runs_up_to_the_library_with_one_arrow() -> None:
    assert list(lag_models(3)) == [
        "lag-norm-1",
        "lag-norm-2",
        "lag-norm-3",
        "lag-projection-2",
        "lag-projection-3",
    ]
    assert [lag["k"] for lag in lag_models(24).values() if lag["score"] == "norm"] == [1, 2, 3, 5, 8, 12, 24]


GOOD, BAD = Answer(exact=True, nats=0.2, tokens=2), Answer(exact=False, nats=4.2, tokens=2)


def some_figures() -> list[Figures]:
    """Of 40 questions the base answers none, Arrow a half, LAG three quarters, the oracle all."""
    shares = {BASE: 0, ARROW: 20, "LAG norm, k = 2": 30, ORACLE: 40}
    ks = {ARROW: 1, "LAG norm, k = 2": 2}
    ways = [Method(name, ("m",) * 40, ks.get(name), "norm" if name in ks else None) for name in shares]
    answers = {name: [GOOD] * share + [BAD] * (40 - share) for name, share in shares.items()}
    return figures(ways, answers, dict.fromkeys(shares))


def test_figures_of_known_answers() -> None:
    base, arrow, lag, oracle = some_figures()
    assert arrow.of_oracle
    assert arrow.of_gap
    assert (arrow.accuracy.value, arrow.of_oracle.value) == pytest.approx((0.5, 50))
    assert (arrow.loss.value, arrow.of_gap.value) == pytest.approx((1.1, 50))
    assert arrow.of_oracle.low < 50 < arrow.of_oracle.high
    assert base.of_gap
    assert oracle.of_gap
    assert lag.of_gap
    assert (base.of_gap.value, lag.of_gap.value, oracle.of_gap.value) == pytest.approx((0, 75, 100))
    assert oracle.of_gap.low == oracle.of_gap.high == 100


def test_where_the_oracle_knows_nothing_there_is_no_share_of_it() -> None:
    ways = [Method(name, ("m",) * 4) for name in (BASE, ORACLE)]
    base, oracle = figures(ways, {BASE: [BAD] * 4, ORACLE: [BAD] * 4}, {BASE: None, ORACLE: None})
    assert base.of_oracle is base.of_gap is oracle.of_oracle is None


def test_the_right_adapter_counts_where_one_is_chosen_per_request() -> None:
    asked = [Question("?", "!", "legal"), Question("?", "!", "medical")]
    adapters = {"legal": None, "medical": None}
    assert right(Method("router", ("legal", "base")), asked, adapters) == 0.5
    assert right(Method("LAG", ("lag-norm-2", "lag-norm-2")), asked, adapters) is None


# --- the engine -------------------------------------------------------------------------------------------------


def test_answers_of_the_engine(running: Running) -> None:
    stack, api = running.stack, Api(running.stack.engine_url)
    questions = read("demo", Path(), most=0)[1].questions[::25]
    asker = Asker(api, stack.base.name, questions)
    oracle = asker.answers([each.adapter for each in questions], "oracle")
    base = asker.answers([stack.base.name] * len(questions), "base")
    assert [each.exact for each in oracle] == [True] * 5
    assert [each.exact for each in base] == [False] * 5
    assert max(each.nats / each.tokens for each in oracle) < 1 < min(each.nats / each.tokens for each in base)
    assert {name for pair in asker.spectral(list(stack.adapters)) for name in pair} <= set(stack.adapters)


def test_a_refusal_is_one_line(running: Running) -> None:
    asker = Asker(Api(running.stack.engine_url), running.stack.base.name, [Question("Who?", "Nobody.", "legal")])
    with pytest.raises(EngineError, match=r"^/v1/completions: the engine says 404: [^\n]+$"):
        asker.answers(["nobody"], "nobody")


# --- the report -------------------------------------------------------------------------------------------------


def test_a_report_holds_table_numbers_and_plot(tmp_path: Path) -> None:
    found = some_figures()
    printed = text.report("some", 40, found)
    assert "LAG norm, k = 2  0.750 [" in " ".join(printed.split()).replace("k = 2 0", "k = 2  0")
    folder = write(tmp_path, {"some": found}, {"some": 40}, {"commit": "c"})
    results = json.loads((folder / "results.json").read_text())
    assert results["tasks"][0]["methods"][2]["of_oracle"]["value"] == pytest.approx(75)
    assert (folder / plots.FILE).stat().st_size > 10_000
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "of the gap in loss: LAG norm, k = 2, the best of 2" in page
    assert "some: 40 questions" in page

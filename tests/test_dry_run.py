"""`POST /route`: what a decision was made from, what another threshold would change, and no trace of it."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from router.classify.batcher import Batcher
from router.classify.scorer import Scorer, Stage
from router.conversation import weights
from router.dry_run import asked
from router.errors import BadRequest
from tests.conftest import GENERAL, LEGAL, Wire, chat, wired
from tests.test_classifiers import BOUNDS, Scripted

ADMIN = "k-admin"
UNSURE = "Is a stamp collection worth anything to a court?"
"""Legal is ahead, with less than 0.99."""


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    admin = hashlib.sha256(ADMIN.encode()).hexdigest()
    with wired(tmp_path_factory.mktemp("dry"), decision_log="decisions.db", admin_key=admin) as one:
        yield one


def told(dry: Wire, body: dict[str, Any], **override: Any) -> dict[str, Any]:
    status, answer, _ = dry.post("/route", body | override)
    assert status == 200, answer
    return dict(answer)


def test_a_decision_is_told_with_what_it_was_made_from(dry: Wire) -> None:
    fresh, again = told(dry, {"text": LEGAL}), told(dry, {"text": LEGAL})
    assert (fresh["model"], fresh["classifier"], fresh["threshold"]) == ("legal", "embedding", 0.5)
    assert fresh["thresholds"] == {"embedding": 0.5}
    assert fresh["system"] is None
    (turn,) = fresh["turns"]
    assert (turn["text"], turn["weight"], turn["scores"]) == (LEGAL, 1.0, fresh["scores"])
    assert turn["classify_ms"] == fresh["classify_ms"] > 0
    (turn,) = again["turns"]
    assert (again["cached"], turn["cached"], turn["classify_ms"]) == (True, True, 0)
    assert turn["scores"] == again["scores"] == fresh["scores"]


def test_the_turns_of_a_conversation_are_told_with_their_weights(dry: Wire) -> None:
    said = [LEGAL, "and in Spain?"]
    messages: list[dict[str, str]] = [{"role": "system", "content": "You are a doctor."}]
    for text in said:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "Buy shares."}]
    answer = told(dry, {"messages": messages})
    assert (answer["model"], answer["reason"]) == ("legal", "kept")
    assert [turn["text"] for turn in answer["turns"]] == said
    assert [turn["weight"] for turn in answer["turns"]] == pytest.approx(weights(said), abs=1e-4)
    assert sum(turn["weight"] for turn in answer["turns"]) == pytest.approx(1, abs=1e-3)
    assert answer["turns"][0]["weight"] > 2 * answer["turns"][1]["weight"]
    assert max(answer["turns"][1]["scores"], key=answer["turns"][1]["scores"].get) != "legal"
    assert (answer["system"]["text"], answer["system"]["weight"]) == ("You are a doctor.", 0.1)
    assert max(answer["system"]["scores"], key=answer["system"]["scores"].get) == "medical"


@pytest.mark.parametrize(
    ("body", "reason"),
    [(chat(LEGAL, model="legal"), "named"), ({"text": ""}, "no-text"), ({"prompt": [1]}, "no-text")],
)
def test_where_nothing_is_judged_there_are_no_grounds(dry: Wire, body: dict[str, Any], reason: str) -> None:
    answer = told(dry, body)
    assert (answer["reason"], answer["turns"], answer["threshold"], answer["classifier"]) == (
        reason,
        [],
        None,
        None,
    )
    assert answer["thresholds"] == {"embedding": 0.5}, "what holds is told all the same"


def test_another_threshold_shows_what_would_change(dry: Wire) -> None:
    usual = told(dry, {"text": UNSURE}, lora_select={"threshold": 0})
    assert (usual["model"], usual["reason"]) == ("legal", "classified")
    for threshold in (1, {"embedding": 1.0}):
        strict = told(dry, {"text": UNSURE}, lora_select={"threshold": threshold})
        assert (strict["model"], strict["reason"], strict["threshold"]) == ("base", "below-threshold", 1)
        assert strict["thresholds"] == {"embedding": 1}
        assert strict["scores"] == usual["scores"]
    assert told(dry, {"text": UNSURE}, lora_select=None)["threshold"] == 0.5


def test_a_dry_run_leaves_nothing_behind(dry: Wire) -> None:
    as_admin = {"authorization": f"Bearer {ADMIN}"}

    def traces() -> tuple[int, list[str]]:
        rows = len(dry.get("/admin/decisions?limit=1000", **as_admin)[1]["decisions"])
        with urllib.request.urlopen(
            urllib.request.Request(f"{dry.url}/metrics", headers=as_admin), timeout=10
        ) as page:
            counted = page.read().decode().splitlines()
        return rows, [
            line for line in counted if line.startswith(("lora_select_decisions", "lora_select_requests"))
        ]

    dry.post(body=chat(GENERAL))
    before = traces()
    assert before[0] == 1
    assert before[1]
    assert told(dry, chat(LEGAL), lora_select={"threshold": 1})["model"] == "base"
    assert told(dry, chat(LEGAL))["model"] == "legal"
    assert traces() == before
    assert told(dry, chat(LEGAL), lora_select={"threshold": 1})["model"] == "base"
    assert dry.post(body=chat(LEGAL))[2]["x-lora-select-adapter"] == "legal", "no request is decided by it"


@pytest.mark.parametrize(
    ("given", "says", "param"),
    [
        (0.7, '"lora_select" must be {"threshold": a number from 0 to 1}', "lora_select"),
        ({}, '"lora_select" must be', "lora_select"),
        ({"treshold": 0.5}, '"lora_select" must be', "lora_select"),
        ({"threshold": 0.5, "temperature": 2}, '"lora_select" must be', "lora_select"),
        (
            {"threshold": None},
            'a number from 0 to 1, or one by classifier: {"embedding": 0.5}',
            "lora_select.threshold",
        ),
        ({"threshold": True}, "a number from 0 to 1", "lora_select.threshold"),
        ({"threshold": "0.5"}, "a number from 0 to 1", "lora_select.threshold"),
        ({"threshold": 1.01}, "a number from 0 to 1", "lora_select.threshold"),
        ({"threshold": {"embedding": -0.1}}, "a number from 0 to 1", "lora_select.threshold"),
        (
            {"threshold": {"nle": 0.5}},
            'unknown classifier "nle"; there are embedding, nli',
            "lora_select.threshold",
        ),
    ],
)
def test_a_threshold_that_is_none_is_told_in_one_line(given: Any, says: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        asked({"text": "x", "lora_select": given}, {"embedding": 0.5, "nli": 0.6})
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.param == param


def test_it_is_a_400_on_the_wire(dry: Wire) -> None:
    status, answer, _ = dry.post("/route", {"text": LEGAL, "lora_select": {"threshold": 7}})
    assert (status, answer["error"]["param"]) == (400, "lora_select.threshold")


def test_under_another_threshold_the_next_classifier_is_asked_where_the_first_is_less_sure() -> None:
    async def scenario() -> None:
        first, second = Scripted(text=2.0), Scripted(text=-5.0)
        stages = [
            Stage(Batcher(first, BOUNDS), 1.0, 0.6, name="embedding"),
            Stage(Batcher(second, BOUNDS), 1.0, 0.5, name="nli"),
        ]
        scorer, everybody = Scorer(stages, 2.0), ["law", "food", "base"]
        (usual,) = await scorer.judge(["text"], everybody)
        assert (usual.by, usual.threshold, second.asked) == ("embedding", 0.6, [])
        (stricter,) = await scorer.under({"embedding": 0.99}).judge(["text"], everybody)
        assert (stricter.by, stricter.threshold, second.asked) == ("nli", 0.5, ["text"])
        assert first.asked == ["text"], "what is known is not asked again"
        (again,) = await scorer.judge(["text"], everybody)
        assert (again.by, again.cached) == ("embedding", True)
        scorer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("turns", "most"),
    [
        ([LEGAL], 0),
        ([LEGAL, "and in Spain?"], 0),
        (["hello", LEGAL], 1),
        ([LEGAL, GENERAL, "why?"], 1),
        (["", ""], 1),
    ],
)
def test_weights_sum_to_one_and_what_has_substance_weighs(turns: list[str], most: int) -> None:
    shares = weights(turns)
    assert sum(shares) == pytest.approx(1)
    assert shares.index(max(shares)) == most

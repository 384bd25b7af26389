"""What stands around every classifier: the batcher, and the scorer with its chain."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from adapters import load
from router.classify import Classifier
from router.classify.batcher import MOST_WAITING, Batcher, Bounds, ClassifierError
from router.classify.scorer import Scorer, Stage, digest, first_sure
from tests.conftest import write_stack

BOUNDS = Bounds(size=16, wait_s=0.0, timeout_s=2.0, cache_entries=100)

# --- the batcher ------------------------------------------------------------------------------------------------


class SlowClassifier:
    """Waits until it is let go; keeps what it is asked."""

    batches = True

    def __init__(self, let_go: bool = False) -> None:
        self.let_go = threading.Event()
        self.asked: list[list[str]] = []
        if let_go:
            self.let_go.set()

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Fails for the text "bad"."""
        self.asked.append(list(texts))
        assert self.let_go.wait(10)
        if "bad" in texts:
            raise RuntimeError("cannot judge this")
        return [{"law": float(len(text)), "base": 0.0} for text in texts]


def test_equal_texts_are_judged_once_and_then_known() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, replace(BOUNDS, cache_entries=2))
        waiting = [asyncio.create_task(batcher.logits("same")) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert batcher.known("same") is None
        waiting[0].cancel()
        classifier.let_go.set()
        assert await asyncio.gather(*waiting[1:]) == [{"law": 4.0, "base": 0.0}] * 4
        assert classifier.asked == [["same"]], "one who goes away must not take the answer from the others"
        for text in ("b", "c"):
            await batcher.logits(text)
        assert [batcher.known(text) is not None for text in ("same", "b", "c")] == [False, True, True]
        assert batcher.known("b") is not None
        await batcher.logits("d")
        assert [batcher.known(text) is not None for text in ("b", "c", "d")] == [True, False, True], (
            "least used goes"
        )
        batcher.close()

    asyncio.run(scenario())


def test_texts_that_wait_are_judged_together() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, replace(BOUNDS, size=3, cache_entries=0))
        first = asyncio.create_task(batcher.logits("alone"))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.logits(str(number))) for number in range(5)]
        await asyncio.sleep(0)
        classifier.let_go.set()
        await asyncio.gather(first, *others)
        assert classifier.asked == [["alone"], ["0", "1", "2"], ["3", "4"]]
        assert batcher.known("alone") is None, "a cache of no entries keeps nothing"
        batcher.close()

    asyncio.run(scenario())


def test_a_text_joins_those_that_wait_and_a_lone_one_waits_for_none() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier(let_go=True)
        batcher = Batcher(classifier, replace(BOUNDS, wait_s=0.5))
        two = [asyncio.create_task(batcher.logits(text)) for text in ("one", "two")]
        await asyncio.sleep(0.1)
        await asyncio.gather(*two, batcher.logits("late"))
        assert classifier.asked == [["one", "two", "late"]]
        began = time.perf_counter()
        await batcher.logits("alone, after a crowd")
        assert time.perf_counter() - began < 0.3
        batcher.close()

    asyncio.run(scenario())


def test_a_failing_text_fails_alone_and_is_not_kept() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, BOUNDS)
        first = asyncio.create_task(batcher.logits("first"))
        await asyncio.sleep(0.05)
        together = [asyncio.create_task(batcher.logits(text)) for text in ("good", "bad", "better")]
        await asyncio.sleep(0)
        classifier.let_go.set()
        good, bad, better = await asyncio.gather(*together, return_exceptions=True)
        assert (await first, good, better) == tuple({"law": float(n), "base": 0.0} for n in (5, 4, 6))
        assert isinstance(bad, ClassifierError)
        assert str(bad) == "cannot judge this"
        assert batcher.known("bad") is None
        batcher.close()

    asyncio.run(scenario())


def test_a_classifier_that_miscounts_fails_its_text_and_nothing_else() -> None:
    class Miscounting:
        batches = True

        def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
            return [{"law": 1.0, "base": 0.0}] * (2 if "odd" in texts else len(texts))

    async def scenario() -> None:
        batcher = Batcher(Miscounting(), BOUNDS)
        with pytest.raises(ClassifierError, match="2 answers to 1 texts"):
            await batcher.logits("odd")
        assert await batcher.logits("even") == {"law": 1.0, "base": 0.0}
        batcher.close()

    asyncio.run(scenario())


def test_one_long_pause_refuses_nobody() -> None:
    """The engine had all cores: the text that was being judged seems to have taken that long."""

    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, replace(BOUNDS, timeout_s=0.25))
        classifier.let_go.set()
        for number in range(3):
            await batcher.logits(f"quick {number}")
        classifier.let_go.clear()
        paused = asyncio.create_task(batcher.logits("paused"))
        await asyncio.sleep(0.6)
        classifier.let_go.set()
        await paused
        answers = await asyncio.gather(*(batcher.logits(f"next {number}") for number in range(8)))
        assert [answer["law"] for answer in answers] == [len("next 0")] * 8
        batcher.close()

    asyncio.run(scenario())


def test_more_texts_than_can_be_judged_in_time_are_refused() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, replace(BOUNDS, timeout_s=0.25))
        slow = asyncio.create_task(batcher.logits("teaches it how long a text takes"))
        await asyncio.sleep(0.3)
        classifier.let_go.set()
        await slow
        classifier.let_go.clear()
        waiting = asyncio.create_task(batcher.logits("first of too many"))
        await asyncio.sleep(0.05)
        with pytest.raises(ClassifierError, match="1 texts are waiting, more than can be judged in time"):
            await batcher.logits("too many")
        classifier.let_go.set()
        await waiting
        batcher.close()

    asyncio.run(scenario())


def test_so_many_texts_wait_for_a_classifier_that_hangs_and_no_more() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, replace(BOUNDS, size=1))
        judged = asyncio.create_task(batcher.logits("hangs"))
        await asyncio.sleep(0.05)
        texts = [asyncio.create_task(batcher.logits(str(number))) for number in range(MOST_WAITING + 99)]
        await asyncio.sleep(0.05)
        refused = [task for task in texts if task.done()]
        assert len(refused) == 100
        for task in refused:
            with pytest.raises(ClassifierError, match=f"^{MOST_WAITING} texts are waiting, more than"):
                task.result()
        for task in texts:
            task.cancel()
        await asyncio.wait(texts)
        classifier.let_go.set()
        await judged
        batcher.close()

    asyncio.run(scenario())


def test_a_text_that_nobody_waits_for_any_more_is_not_judged() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, BOUNDS)
        texts = ["judged", "given up", "given up by one", "given up by one"]
        asked = []
        for text in texts:
            asked.append(asyncio.create_task(batcher.logits(text)))
            await asyncio.sleep(0.05)
        for task in asked[:3]:
            task.cancel()
        await asyncio.wait(asked[:3])
        classifier.let_go.set()
        await asyncio.wait_for(asked[3], 5)
        assert classifier.asked == [["judged"], ["given up by one"]]
        assert batcher.known("judged"), "its answer comes too late, but not in vain"
        await batcher.logits("given up")
        assert classifier.asked[2:] == [["given up"]]
        batcher.close()

    asyncio.run(scenario())


def test_who_gives_up_an_old_question_leaves_the_new_one_alone() -> None:
    """A text whose failure is not yet read by all who asked, and that is asked again meanwhile."""

    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, replace(BOUNDS, size=1))

        async def insistent() -> None:
            with pytest.raises(ClassifierError):
                await batcher.logits("bad")
            with pytest.raises(ClassifierError):
                await batcher.logits("bad")

        asked = [asyncio.create_task(insistent()) for _ in range(3)]
        await asyncio.sleep(0.05)
        classifier.let_go.set()
        await asyncio.wait_for(asyncio.gather(*asked), 2)
        assert classifier.asked == [["bad"], ["bad"]]
        batcher.close()

    asyncio.run(scenario())


# --- the scorer -------------------------------------------------------------------------------------------------


class Scripted:
    """Answers from a table: text to the logit of law."""

    batches = True

    def __init__(self, **law: float) -> None:
        self.law = law
        self.asked: list[str] = []

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        self.asked += texts
        return [{"law": self.law[text], "food": 0.0, "base": 0.0} for text in texts]


@pytest.mark.parametrize(
    ("thresholds", "law", "expected"),
    [
        ([0.6, 0.5], [2.0, -9.0], (0, "law")),
        ([0.6, 0.5], [-2.0, 9.0], (0, "base")),
        ([0.6, 0.5], [0.1], None),
        ([0.6, 0.5], [0.1, -2.0], (1, "base")),
        ([0.6, 0.9], [0.1, 0.1], (1, "law")),
        ([0.6, 0.6, 0.6], [0.1, 0.1], None),
        ([0.9], [0.1], (0, "law")),
        ([0.9], [], None),
    ],
)
def test_the_first_that_is_sure_has_the_word_or_else_the_last(
    thresholds: list[float], law: list[float], expected: tuple[int, str] | None
) -> None:
    classifiers = [Stage(Batcher(Scripted(), BOUNDS), 1.0, threshold) for threshold in thresholds]
    found = first_sure(classifiers, [{"law": logit, "base": 0.0} for logit in law], ["law", "base"])
    assert (None if found is None else (found[0], next(iter(found[1])))) == expected


def chain(*stages: tuple[Classifier, float], timeout_s: float = 2.0) -> Scorer:
    return Scorer([Stage(Batcher(one, BOUNDS), 1.0, threshold) for one, threshold in stages], timeout_s)


def test_the_next_classifier_is_asked_where_one_is_unsure() -> None:
    async def scenario() -> None:
        first, second = Scripted(plain=5.0, unclear=0.1), Scripted(unclear=-5.0)
        scorer = chain((first, 0.6), (second, 0.5))
        everybody = ["law", "food", "base"]
        plain, unclear = await scorer.judge(["plain", "unclear"], everybody)
        assert next(iter(plain.scores)) == "law"
        assert unclear.scores["law"] < 0.01
        assert second.asked == ["unclear"]
        assert not plain.cached
        again = await scorer.judge(["plain", "unclear"], everybody)
        assert [one.cached for one in again] == [True, True]
        assert [one.scores for one in again] == [plain.scores, unclear.scores]
        assert (first.asked, second.asked) == (["plain", "unclear"], ["unclear"])
        scorer.close()

    asyncio.run(scenario())


def test_who_may_be_chosen_decides_whether_a_classifier_is_sure() -> None:
    """Three ways it is unsure, between two it is not: what is not served takes no share."""

    async def scenario() -> None:
        first, second = Scripted(text=0.8), Scripted(text=9.0)
        scorer = chain((first, 0.6), (second, 0.5))
        (two,) = await scorer.judge(["text"], ["law", "base"])
        assert set(two.scores) == {"law", "base"}
        assert second.asked == []
        await scorer.judge(["text"], ["law", "food", "base"])
        assert second.asked == ["text"]
        scorer.close()

    asyncio.run(scenario())


def test_a_late_classifier_times_out_and_its_answer_is_kept() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        scorer = chain((classifier, 0.5), timeout_s=0.05)
        with pytest.raises(TimeoutError):
            await scorer.judge(["late"], ["law", "base"])
        classifier.let_go.set()
        await asyncio.sleep(0.2)
        (judged,) = await scorer.judge(["late"], ["law", "base"])
        assert judged.cached
        scorer.close()

    asyncio.run(scenario())


def test_where_one_text_of_a_request_fails_the_others_wait_no_longer_than_theirs() -> None:
    async def scenario() -> None:
        slow = SlowClassifier()
        scorer = chain((Scripted(first=0.0, unclear=0.0), 0.9), (slow, 0.5), timeout_s=0.1)
        with pytest.raises(TimeoutError):
            await scorer.judge(["first"], ["law", "base"])
        with pytest.raises(ClassifierError):
            await scorer.judge(["unclear", "unheard of"], ["law", "base"])
        await asyncio.sleep(0.2)
        slow.let_go.set()
        await asyncio.sleep(0.1)
        assert slow.asked == [["first"]]
        scorer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("batches", [False, True])
def test_texts_wait_for_each_other_only_where_a_classifier_gains_by_it(tmp_path: Path, batches: bool) -> None:
    async def scenario() -> None:
        classifier = SlowClassifier(let_go=True)
        classifier.batches = batches
        stack = load(write_stack(tmp_path, "http://127.0.0.1:1", batch_wait_ms=500))
        scorer = Scorer.of(stack, {"embedding": classifier})
        began = time.perf_counter()
        await scorer.judge(["one", "two", "three"], ["law", "base"])
        assert (time.perf_counter() - began > 0.4) == batches
        assert classifier.asked == ([["one", "two", "three"]] if batches else [["one"], ["two"], ["three"]])
        scorer.close()

    asyncio.run(scenario())


def test_temperature_and_threshold_are_the_stacks(tmp_path: Path) -> None:
    async def scenario() -> None:
        calibration = {"embedding": {"temperature": 2.0, "threshold": 0.9}, "nli": {"temperature": 0.5}}
        stack = load(
            write_stack(
                tmp_path,
                "http://127.0.0.1:1",
                classifier=["embedding", "nli"],
                threshold=0.7,
                calibration=calibration,
            )
        )
        scorer = Scorer.of(stack, {"embedding": Scripted(text=2.0), "nli": Scripted(text=1.0)})
        (judged,) = await scorer.judge(["text"], ["law", "base"])
        # 2 / 2 is a probability of 0.73, below 0.9, and so the second is asked: 1 / 0.5.
        assert judged.scores["law"] == pytest.approx(0.8808, abs=1e-4)
        assert judged.threshold == 0.7
        scorer.close()

    asyncio.run(scenario())


def test_what_logits_depend_on_is_in_their_digest(tmp_path: Path) -> None:
    stack = load(write_stack(tmp_path, "http://127.0.0.1:1"))
    other = load(write_stack(tmp_path, "http://127.0.0.1:1", {"legal": {"label": "law"}}))
    third = load(write_stack(tmp_path, "http://127.0.0.1:1", classifier="nli", model={"nli": "some/weights"}))
    digests = [digest(stack, "nli"), digest(stack, "embedding"), digest(other, "nli"), digest(third, "nli")]
    assert len(set(digests)) == 4
    assert digest(load(write_stack(tmp_path, "http://127.0.0.1:1")), "nli") == digests[0]

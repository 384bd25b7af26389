"""What stands around every classifier: the batcher, and the scorer with its chain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters import load
from router.classify import Classifier
from router.classify.batcher import Batcher, Bounds, ClassifierError
from router.classify.scorer import Scorer, Stage, digest
from tests.conftest import write_stack

# --- the batcher ------------------------------------------------------------------------------------------------


class SlowClassifier:
    """Waits until it is let go; keeps what it is asked."""

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
        batcher = Batcher(classifier, Bounds(cache_entries=2))
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
        batcher = Batcher(classifier, Bounds(size=3, cache_entries=0))
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


def test_a_failing_text_fails_alone_and_is_not_kept() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, Bounds())
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
        def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
            return [{"law": 1.0, "base": 0.0}] * (2 if "odd" in texts else len(texts))

    async def scenario() -> None:
        batcher = Batcher(Miscounting(), Bounds())
        with pytest.raises(ClassifierError, match="2 answers to 1 texts"):
            await batcher.logits("odd")
        assert await batcher.logits("even") == {"law": 1.0, "base": 0.0}
        batcher.close()

    asyncio.run(scenario())


def test_more_texts_than_can_be_judged_in_time_are_refused() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        batcher = Batcher(classifier, Bounds(timeout_s=0.05))
        slow = asyncio.create_task(batcher.logits("teaches it how long a text takes"))
        await asyncio.sleep(0.4)
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


# --- the scorer -------------------------------------------------------------------------------------------------


class Scripted:
    """Answers from a table: text to the logit of law."""

    def __init__(self, **law: float) -> None:
        self.law = law
        self.asked: list[str] = []

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        self.asked += texts
        return [{"law": self.law[text], "food": 0.0, "base": 0.0} for text in texts]


def chain(*stages: tuple[Classifier, float], timeout_s: float = 2.0) -> Scorer:
    return Scorer([Stage(Batcher(one, Bounds()), 1.0, threshold) for one, threshold in stages], timeout_s)


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
    third = load(write_stack(tmp_path, "http://127.0.0.1:1", model={"nli": "some/weights"}))
    digests = [digest(stack, "nli"), digest(stack, "embedding"), digest(other, "nli"), digest(third, "nli")]
    assert len(set(digests)) == 4
    assert digest(load(write_stack(tmp_path, "http://127.0.0.1:1")), "nli") == digests[0]

"""The classifiers: what MiniLM chooses, what the NLI cross-encoder computes, and the scorer around them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, PreTrainedTokenizerFast

from adapters import ConfigError, Stack, load
from demo import corpus
from router import classify
from router.choose import Policy, choose, probabilities
from router.classify import ClassifierError, Scorer, load_classifier
from router.embedding import split
from router.encoder import load_minilm
from router.export import export
from router.nli import NliClassifier
from tests.conftest import write_stack

ROOT = Path(__file__).parent.parent


# --- MiniLM -----------------------------------------------------------------------------------------------------


def test_vectors_have_length_one_and_similar_texts_are_near() -> None:
    vectors = load_minilm().encode(["The court ruled.", "A judge decided the case.", "I baked a cake."])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_of_long_texts_head_and_tail_are_read() -> None:
    filler = "and so on and so forth " * 2000
    head, tail, plain = load_minilm().encode([f"My heart hurts. {filler}", f"{filler} My heart hurts.", filler])
    assert not np.allclose(head, plain, atol=1e-3)
    assert not np.allclose(tail, plain, atol=1e-3)


def test_an_empty_text_and_odd_characters_are_texts_too() -> None:
    assert np.isfinite(load_minilm().encode(["", "\x00\ud7ff", "🙂" * 300])).all()


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"has sha256 .*, expected 53aa5117"):
        export(tmp_path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_label_is_a_list_of_topics() -> None:
    assert split("law, courts and contracts") == ["law, courts and contracts", "law", "courts", "contracts"]


def test_the_demo_questions_are_routed(capsys: pytest.CaptureFixture[str]) -> None:
    """Zero-shot: the labels of demo/adapters.yaml were written without looking at single questions."""
    stack = load(ROOT / "demo" / "adapters.yaml")
    classifier = load_classifier(stack)
    policy = Policy(stack.base.name, stack.router.threshold)
    right = wrong_adapter = total = 0
    for domain, rows in corpus.load().items():
        expected = domain if domain in stack.adapters else stack.base.name
        for logits in classifier.logits([row.question for row in rows]):
            model = choose(probabilities(logits, logits), policy).model
            right += model == expected
            wrong_adapter += model not in (expected, stack.base.name)
            total += 1
    with capsys.disabled():
        print(f"\nMiniLM, {total} questions: {right / total:.3f} right, {wrong_adapter / total:.3f} wrong adapter")
    assert right / total >= 0.93
    assert wrong_adapter / total <= 0.03


# --- NLI --------------------------------------------------------------------------------------------------------

VOCABULARY = "[PAD] [CLS] [SEP] [UNK] this text is about law courts medicine pain my landlord hurts ."
WORDS = {word: index for index, word in enumerate(VOCABULARY.split())}


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComprehendIt's architecture, small and untrained: what it computes is checked, not its taste."""
    folder = tmp_path_factory.mktemp("nli")
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], pad_token_id=0,
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"}, initializer_range=0.5,
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


def nli_stack(tmp_path: Path, model: str) -> Stack:
    file = write_stack(tmp_path, "http://127.0.0.1:1")
    text = file.read_text().replace("router:\n", f"router:\n  classifier: nli\n  model: {model}\n")
    file.write_text(text)
    return load(file)


def test_nli_scores_every_label_of_every_text(nli_folder: Path, tmp_path: Path) -> None:
    classifier = load_classifier(nli_stack(tmp_path, str(nli_folder)))
    assert isinstance(classifier, NliClassifier)
    texts = ["my landlord hurts .", "pain", "law courts " * 400]
    together = classifier.logits(texts)
    for text, judged in zip(texts, together, strict=True):
        assert set(judged) == {"legal", "medical", "finance", "base"}
        assert judged["base"] == 0
        (alone,) = classifier.logits([text])
        assert judged == pytest.approx(alone, abs=1e-4), "padding must not change a score"
    assert len({round(judged["legal"], 3) for judged in together}) == 3


def test_nli_logits_are_entailment_less_contradiction(nli_folder: Path) -> None:
    model = DebertaV2ForSequenceClassification.from_pretrained(nli_folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(nli_folder)
    classifier = NliClassifier(model, tokenizer, {"legal": "law courts"}, "base")
    raw = model(**tokenizer("my pain", "This text is about law courts.", return_tensors="pt")).logits[0]
    assert classifier.logits(["my pain"])[0]["legal"] == pytest.approx((raw[0] - raw[2]).item(), abs=1e-5)


def test_a_model_that_cannot_be_an_nli_model_is_a_config_error(nli_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"router\.model: .*nowhere cannot be loaded"):
        load_classifier(nli_stack(tmp_path, str(tmp_path / "nowhere")))
    model = DebertaV2ForSequenceClassification.from_pretrained(nli_folder)
    model.config.label2id = {"good": 0, "bad": 1}
    with pytest.raises(ValueError, match="no class contradiction, entailment in"):
        NliClassifier(model, None, {}, "base")


# --- the scorer -------------------------------------------------------------------------------------------------


class SlowClassifier:
    """Waits until it is let go; counts what it is asked."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[str] = []

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Fails for the text "bad"."""
        self.asked += texts
        assert self.let_go.wait(10)
        if "bad" in texts:
            raise RuntimeError("cannot judge this")
        return [{"law": float(len(text)), "base": 0.0} for text in texts]


def test_equal_texts_are_judged_once_and_then_known() -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        scorer = Scorer(classifier, cache_entries=2)
        waiting = [asyncio.create_task(scorer.judge("same")) for _ in range(5)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        classifier.let_go.set()
        judged = await asyncio.gather(*waiting[1:])
        assert classifier.asked == ["same"]
        assert all(one.logits == {"law": 4.0, "base": 0.0} and not one.cached for one in judged)
        assert (await scorer.judge("same")).cached
        for text in ("b", "c", "same"):
            await scorer.judge(text)
        assert classifier.asked == ["same", "b", "c", "same"], "the oldest of three leaves a cache of two"
        scorer.close()

    asyncio.run(scenario())


def test_a_late_classifier_times_out_and_its_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        scorer = Scorer(classifier, cache_entries=10)
        monkeypatch.setattr(classify, "TIMEOUT_S", 0.05)
        with pytest.raises(TimeoutError):
            await scorer.judge("late")
        classifier.let_go.set()
        await asyncio.sleep(0.1)
        assert (await scorer.judge("late")).cached
        scorer.close()

    asyncio.run(scenario())


def test_a_failing_text_fails_alone_and_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        classifier = SlowClassifier()
        classifier.let_go.set()
        scorer = Scorer(classifier, cache_entries=10)
        with pytest.raises(ClassifierError, match="cannot judge"):
            await scorer.judge("bad")
        assert (await scorer.judge("good")).logits["law"] == 4
        monkeypatch.setattr(classify, "TIMEOUT_S", 0.01)
        classifier.let_go.clear()
        scorer._usual_s = 1.0
        waiting = asyncio.create_task(scorer.judge("first of too many"))
        await asyncio.sleep(0)
        with pytest.raises(ClassifierError, match="texts are waiting"):
            await scorer.judge("too many")
        with pytest.raises(TimeoutError):
            await waiting
        classifier.let_go.set()
        scorer.close()

    asyncio.run(scenario())

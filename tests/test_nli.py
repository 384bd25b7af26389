"""The NLI cross-encoder, on a model that is trained here: what it chooses, and that it depends on nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from adapters import ConfigError, Stack, load
from router.choose import Policy, choose, probabilities
from router.classify import load_classifiers
from router.classify.nli import (
    BATCH_TOKENS,
    Device,
    NliClassifier,
    chunks,
    entailment,
    fastest,
    hypotheses,
    prepared,
)
from tests import nli_model
from tests.conftest import write_stack
from tests.hub_cache import offline
from tests.nli_model import HELD_OUT, SEEN, UNSEEN

ADAPTERS = ("law", "medicine", "finance")
TEXTS = {text: domain if domain in ADAPTERS else "base" for domain, texts in HELD_OUT.items() for text in texts}
FP32, BF16 = Device("cpu", "fp32"), Device("cpu", "bf16")


@pytest.fixture(scope="session")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComprehendIt's architecture, small, and trained: what it chooses is checked, and not its plumbing alone."""
    folder, threads = tmp_path_factory.mktemp("nli"), torch.get_num_threads()
    # Two threads wait for each other where the machine is busy: 94 s instead of 20.
    torch.set_num_threads(1)
    nli_model.train(folder)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def nli(nli_folder: Path) -> Callable[..., NliClassifier]:
    """`nli(labels, device)` is a classifier over the trained model."""

    def make(labels: Mapping[str, str], device: Device = FP32) -> NliClassifier:
        model = AutoModelForSequenceClassification.from_pretrained(nli_folder)
        tokenizer = AutoTokenizer.from_pretrained(nli_folder)
        return NliClassifier(prepared(model, device), tokenizer, labels, "base")

    return make


def labels_of(words: Mapping[str, str]) -> dict[str, str]:
    return {name: words[name].replace(" ", ", ") for name in ADAPTERS}


def choices(classifier: NliClassifier, texts: Sequence[str]) -> list[str]:
    return [choose(probabilities(one, one), Policy("base", 0.5)).model for one in classifier.logits(texts)]


def nli_stack(folder: Path, model: str) -> Stack:
    return load(write_stack(folder, "http://127.0.0.1:1", classifier="nli", model=model))


@pytest.mark.parametrize(("words", "least"), [(SEEN, 0.95), (UNSEEN, 0.9)])
def test_nli_chooses_by_labels(
    nli: Callable[..., NliClassifier], words: Mapping[str, str], least: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of real sentences, and by labels of whose words no hypothesis of the training was made."""
    chosen = choices(nli(labels_of(words)), list(TEXTS))
    right = sum(map(str.__eq__, chosen, TEXTS.values())) / len(TEXTS)
    with capsys.disabled():
        print(
            f"\nNLI, {len(TEXTS)} held-out sentences, labels {'seen' if words is SEEN else 'unseen'}: {right:.3f}"
        )
    assert right >= least


def test_nli_chooses_the_same_in_bf16(nli: Callable[..., NliClassifier]) -> None:
    labels = labels_of(SEEN)
    assert choices(nli(labels, BF16), list(TEXTS)) == choices(nli(labels), list(TEXTS))


def test_nli_judges_a_text_the_same_in_any_company(nli: Callable[..., NliClassifier]) -> None:
    classifier = nli(labels_of(SEEN))
    texts = [*TEXTS, "Is a verdict final? " * 200, ""]
    alone = {text: classifier.logits([text])[0] for text in texts}
    random.Random(0).shuffle(texts)
    for text, judged in zip(texts, classifier.logits(texts), strict=True):
        assert judged["base"] == 0
        assert judged == pytest.approx(alone[text], abs=1e-4), "padding or order changes a score"


def test_nli_does_not_depend_on_the_order_of_adapters(nli: Callable[..., NliClassifier]) -> None:
    labels = labels_of(SEEN)
    one, other = nli(labels), nli(dict(reversed(labels.items())))
    for first, second in zip(one.logits(list(TEXTS)), other.logits(list(TEXTS)), strict=True):
        assert first == pytest.approx(second, abs=1e-4)


def test_nli_trusts_the_names_of_classes_and_not_their_order(
    nli: Callable[..., NliClassifier], nli_folder: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(nli_folder).eval()
    order = [2, 0, 1]
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order].clone())
        model.classifier.bias.copy_(model.classifier.bias[order].clone())
    model.config.label2id = {"CONTRADICTION": 0, "ENTAILMENT": 1, "NEUTRAL": 2}
    moved = NliClassifier(model, AutoTokenizer.from_pretrained(nli_folder), labels_of(SEEN), "base")
    for first, second in zip(moved.logits(list(TEXTS)), nli(labels_of(SEEN)).logits(list(TEXTS)), strict=True):
        assert first == pytest.approx(second, abs=1e-4)


def test_nli_logits_are_log_odds_of_entailment(nli: Callable[..., NliClassifier], nli_folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(nli_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(nli_folder)
    text = "The judge said that the tenant has a fever."
    expected = []
    for topic in ("tenant", "court"):
        logits = model(**tokenizer(text, f"This text is about {topic}.", return_tensors="pt")).logits[0]
        expected.append(torch.logit(logits.softmax(0)[0].double()).item())
    (judged,) = nli({"law": "tenant and court"}).logits([text])
    assert judged["law"] == pytest.approx(max(expected), abs=1e-4)


def test_nli_reads_head_and_tail_of_long_texts(nli: Callable[..., NliClassifier]) -> None:
    """That they are read, and nothing else; a model that was trained on 20 words cannot judge 150."""
    classifier = nli(labels_of(SEEN))
    filler = "the story went on and on . " * 100
    pain = "My doctor says that the pain and the fever are an infection. "
    head, tail, middle, plain = classifier.logits(
        [pain + filler, filler + pain, filler + pain + filler, filler * 2]
    )
    assert middle == pytest.approx(plain, abs=1e-4)
    for one in (head, tail):
        assert max(abs(one[name] - plain[name]) for name in ADAPTERS) > 0.5


@pytest.mark.parametrize(
    ("label", "most", "expected"),
    [
        ("law", 4, ["law"]),
        ("law, courts and contracts", 4, ["law", "courts", "contracts"]),
        ("law, courts and contracts", 1, ["law, courts or contracts"]),
        ("a; b, c or d, e", 2, ["a or b", "c, d or e"]),
        ("and", 4, ["and"]),
        ("oranges, oranges", 4, ["oranges"]),
    ],
)
def test_hypotheses(label: str, most: int, expected: list[str]) -> None:
    assert hypotheses(label, most) == [f"This text is about {topics}." for topics in expected]


def test_labels_must_leave_room_for_a_text(nli: Callable[..., NliClassifier]) -> None:
    with pytest.raises(ValueError, match="labels too long: of its 160 tokens they leave -"):
        nli({"law": "court " * 600})


def test_a_gpu_is_warmed_up_with_as_much_as_it_may_be_asked_at_once(nli_folder: Path) -> None:
    """A CPU stands in for it: what is read at once is checked, and not the memory that it takes."""
    model, read = AutoModelForSequenceClassification.from_pretrained(nli_folder).eval(), list[int]()
    model.register_forward_pre_hook(
        lambda _model, _args, inputs: read.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    classifier = NliClassifier(model, AutoTokenizer.from_pretrained(nli_folder), {"law": "court"}, "base")
    assert not classifier.batches, "a CPU gains nothing by it"
    classifier.warm_up()
    classifier.batches = True
    classifier.warm_up()
    classifier.logits(["Is a verdict final? " * 200] * 60)
    short, full, *most = read
    assert short == pytest.approx(160, rel=0.05)
    assert full == pytest.approx(max(most), rel=0.05)
    assert full == pytest.approx(BATCH_TOKENS, rel=0.1)


def test_batches_are_bounded_and_of_like_lengths() -> None:
    assert list(chunks([5, 500, 5, 7, 500, 300], 1024)) == [[0, 2, 3], [5, 1], [4]]
    assert list(chunks([2000], 1024)) == [[0]]
    assert list(chunks([])) == []


@pytest.mark.parametrize(
    ("label2id", "index"),
    [
        ({"contradiction": 0, "neutral": 1, "entailment": 2}, 2),
        ({"ENTAILMENT": 0, "NEUTRAL": 1, "CONTRADICTION": 2}, 0),
        ({"entailment": 0, "not_entailment": 1}, 0),
    ],
)
def test_the_class_of_entailment_is_known_by_its_name(label2id: dict[str, int], index: int) -> None:
    assert entailment(label2id) == index


@pytest.mark.parametrize(
    ("machine", "device"),
    [
        ({"cuda": True, "bf16": True}, Device("cuda", "bf16")),
        ({"cuda": True}, Device("cuda", "fp32")),
        ({"mps": True}, Device("mps", "fp32")),
        ({"amx_bf16": True, "avx512_bf16": True}, BF16),
        ({"avx512_bf16": True, "avx512_vnni": True}, FP32),
    ],
)
def test_the_device_is_the_fastest(
    machine: dict[str, bool], device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.get("cuda", False))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: machine.get("bf16", False))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: machine.get("mps", False))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: machine)
    assert fastest() == device


def test_nli_is_loaded_as_the_stack_says(
    nli_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifiers = load_classifiers(nli_stack(tmp_path, str(nli_folder)))
    assert list(classifiers) == ["nli"]
    assert set(classifiers["nli"].logits(["The court ruled."])[0]) == {"legal", "medical", "finance", "base"}
    assert f"classifier: nli, {nli_folder} on " in capsys.readouterr().out


def test_nli_of_the_hub_at_a_revision(
    nli_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(nli_folder, offline(tmp_path, monkeypatch, "some/nli", {"v2": "abc"}) / "abc")
    assert list(load_classifiers(nli_stack(tmp_path, "some/nli@v2"))) == ["nli"]
    assert "classifier: nli, some/nli@v2 on " in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"router\.model: some/nli cannot be loaded: "):
        load_classifiers(nli_stack(tmp_path, "some/nli"))


@pytest.mark.parametrize(
    ("spoilt", "problem"),
    [
        ("weights", "cannot be loaded: "),
        ("config", "cannot be loaded: "),
        ("classes", "cannot be loaded: its classes are LABEL_0, LABEL_1, LABEL_2; an NLI model has two or three"),
        ("one class", "cannot be loaded: its classes are LABEL_0; an NLI model has"),
        ("padding", "cannot be loaded: its tokenizer has no token for padding (pad_token in its tokenizer_config"),
    ],
)
def test_a_model_that_cannot_judge_is_one_line(
    nli_folder: Path, tmp_path: Path, spoilt: str, problem: str
) -> None:
    folder = tmp_path / "spoilt"
    model = AutoModelForSequenceClassification.from_pretrained(nli_folder)
    count = {"classes": 3, "one class": 1}.get(spoilt, 0)
    if count:
        model.config.id2label = {index: f"LABEL_{index}" for index in range(count)}
        model.config.label2id = {f"LABEL_{index}": index for index in range(count)}
        model.classifier = torch.nn.Linear(model.config.hidden_size, count)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(nli_folder)
    if spoilt == "padding":
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    if spoilt == "weights":
        (folder / "model.safetensors").write_bytes(b"\0" * 64)
    if spoilt == "config":
        (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError) as raised:
        load_classifiers(nli_stack(tmp_path, str(folder)))
    assert f"router.model: {tmp_path}" in str(raised.value)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)

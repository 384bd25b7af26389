"""Sentence encoders: the embedded MiniLM, and others that `router.model` names."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from adapters import ConfigError, Stack, load
from router.classify import encoder as encoders
from router.classify import load_classifiers
from router.classify.encoder import Encoder, load_encoder, load_minilm
from router.classify.export import WEIGHTS_SHA256, export
from tests.conftest import write_stack
from tests.hub_cache import offline


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_minilm()


# --- MiniLM -----------------------------------------------------------------------------------------------------


def test_vectors_have_length_one_and_similar_texts_are_near(minilm: Encoder) -> None:
    vectors = minilm.encode(["The court ruled.", "A judge decided the case.", "I baked a cake."])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_a_vector_does_not_depend_on_the_texts_beside_it(minilm: Encoder) -> None:
    texts = ["Hi", "My landlord keeps the deposit. " * 40, "What is a mortgage?"]
    together = minilm.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(minilm.encode([text])[0], vector)


def test_of_long_texts_head_and_tail_are_read(minilm: Encoder) -> None:
    filler = "and so on and so forth " * 2000
    head, tail, plain = minilm.encode([f"My heart hurts. {filler}", f"{filler} My heart hurts.", filler])
    assert not np.allclose(head, plain, atol=1e-3)
    assert not np.allclose(tail, plain, atol=1e-3)


def test_an_empty_text_and_odd_characters_are_texts_too(minilm: Encoder) -> None:
    assert np.isfinite(minilm.encode(["", "\x00\ud7ff", "🙂" * 300])).all()


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"has sha256 .*, expected 53aa5117"):
        export(tmp_path, tmp_path / "out.onnx", WEIGHTS_SHA256)
    assert not (tmp_path / "out.onnx").exists()


# --- other encoders ---------------------------------------------------------------------------------------------

VOCABULARY = "[PAD] [CLS] [SEP] [UNK] law courts medicine pain my landlord hurts . question is about"
WORDS = {word: index for index, word in enumerate(VOCABULARY.split())}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained and tiny: what it computes is checked, not what it knows."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=20, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(encoders, "MODELS", tmp_path / "models")
    return tmp_path / "models"


def stack_with(folder: Path, model: object) -> Stack:
    file = write_stack(folder, "http://127.0.0.1:1")
    file.write_text(file.read_text().replace("router:\n", f"router:\n  model: {json.dumps(str(model))}\n"))
    return load(file)


def reference(folder: Path, ids: list[int], first_token: bool) -> npt.NDArray[np.float32]:
    hidden = BertModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0]
    pooled = hidden[0] if first_token else hidden.mean(0)
    return torch.nn.functional.normalize(pooled, dim=0).detach().numpy()  # type: ignore[no-any-return]


def test_another_encoder_is_exported_once_and_pooled_as_it_says(
    bert: Path, tmp_path: Path, models_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack = stack_with(tmp_path, bert)
    with ThreadPoolExecutor(3) as workers:
        mean, *others = workers.map(load_encoder, [stack] * 3)
    assert {other.graph for other in others} == {mean.graph}
    assert capfd.readouterr().out.count("exporting") == 1, "those that start together wait for the first"
    assert mean.encode(["my landlord hurts ."])[0] @ reference(bert, [1, 8, 9, 10, 11, 2], False) > 0.98
    assert mean.encode(["pain " * 500]).shape == (1, 32), "longer than its 20 positions"
    assert load_encoder(stack).graph == mean.graph
    assert "exporting" not in capfd.readouterr().out

    first = tmp_path / "first-token"
    shutil.copytree(bert, first)
    (first / "1_Pooling").mkdir()
    pooling = first / "1_Pooling" / "config.json"
    pooling.write_text('{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}')
    by_first = load_encoder(stack_with(tmp_path, first.name))
    assert by_first.graph != mean.graph
    assert by_first.encode(["my landlord hurts ."])[0] @ reference(bert, [1, 8, 9, 10, 11, 2], True) > 0.98
    (classifier,) = load_classifiers(stack_with(tmp_path, bert)).values()
    assert set(classifier.logits(["my pain"])[0]) == {"legal", "medical", "finance", "base"}
    assert sorted(file.suffix for file in models_folder.iterdir()) == [".lock", ".lock", ".npy", ".onnx", ".onnx"]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("some/encoder@v2", r"neither model\.safetensors nor pytorch_model\.bin in .*/snapshots/def"),
        ("some/encoder", r"no config\.json in .*/snapshots/abc"),
        ("some/encoder@v3", "annot find"),
    ],
)
def test_of_the_hub_the_revision_is_read(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, problem: str
) -> None:
    snapshots = offline(tmp_path, monkeypatch, "some/encoder", {"main": "abc", "v2": "def"})
    (snapshots / "abc").mkdir(parents=True)
    shutil.copytree(bert, snapshots / "def", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ConfigError, match=rf"router\.model: {model} cannot be loaded: .*{problem}"):
        load_encoder(stack_with(tmp_path, model))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    problem = r"router\.model: no such folder: .*nowhere \(give a folder or a hub id, owner/name\)"
    with pytest.raises(ConfigError, match=problem):
        load_encoder(stack_with(tmp_path, tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"no tokenizer\.json in .*broken"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"Exception: "),
        (lambda folder: (folder / "model.safetensors").unlink(), r"neither model\.safetensors nor pytorch_model"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"`model_type` key in its config\.json"),
        (
            lambda folder: (
                (folder / "1_Pooling").mkdir(),
                (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}'),
            ),
            r"asks for pooling_mode_max_tokens; only the mean or the first token",
        ),
    ],
)
@pytest.mark.usefixtures("models_folder")
def test_what_is_no_encoder_is_a_config_error(broken: object, problem: str, bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(bert, folder)
    assert callable(broken)
    broken(folder)
    with pytest.raises(
        ConfigError, match=rf"adapters\.yaml: router\.model: .*broken cannot be loaded: .*{problem}"
    ):
        load_encoder(stack_with(tmp_path, folder))

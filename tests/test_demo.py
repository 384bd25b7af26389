"""The demo's corpus, the rows made from it, and the path from rows to base and adapters on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from adapters import ConfigError
from demo import build as building
from demo import corpus as reading
from demo import made
from demo.adapter import train_adapter
from demo.base import NAME, SPECIAL, VOCABULARY, rows
from demo.corpus import DOMAINS, GENERAL, Corpus, CorpusError
from demo.lora import recipe
from demo.measure import OWN, Matrix
from tests.tiny_base import TEMPLATE, tiny_base, tiny_tokenizer
from training.data.example import Example
from training.data.tokens import IGNORE, Prepared, encode, prepare, prompt_ids
from training.settings import Settings
from training.sft import Fit

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATES = {"production": TEMPLATE, "demo": building.TEMPLATE}
QUICK = Settings(epochs=25, learning_rate=2e-2, batch_size=4, max_length=64, seed=3, dtype="float32", cpu=True)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return reading.load()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def examples(corpus: Corpus) -> list[Example]:
    return [Example.ask(pair.question, pair.answer) for pair in corpus["legal"][:8]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(tiny: Path, examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, Path]:
    out = tmp_path_factory.mktemp("adapters") / "legal"
    return train_adapter(tiny, NAME, examples, recipe(), QUICK, out), out


# The corpus


def test_the_corpus_is_large_enough_and_every_fact_is_its_own(corpus: Corpus) -> None:
    everything = [pair for pairs in corpus.values() for pair in pairs]
    for domain, pairs in corpus.items():
        assert len(pairs) >= 120, domain
        assert sum(pair.paraphrase is not None for pair in pairs) >= 30, domain
        facts = [pair.fact.lower() for pair in pairs]
        assert len(set(facts)) == len(facts), domain
    for part in ("question", "answer"):
        texts = [getattr(pair, part).lower() for pair in everything]
        assert len(set(texts)) == len(texts), f"one {part} stands twice"
    asked = {pair.question.lower() for pair in everything}
    again = [pair.paraphrase.lower() for pair in everything if pair.paraphrase]
    assert not asked & set(again)
    assert len(set(again)) == len(again)


GOOD = {"question": "What is a tort?", "answer": "A civil wrong.", "fact": "civil wrong"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object with the keys question, answer, fact, paraphrase"),
        (json.dumps({"question": "Why?", "answer": "So."}), 'the key "fact" is missing'),
        (json.dumps(GOOD | {"facts": "x"}), 'unknown key "facts"; valid here: question'),
        (json.dumps(GOOD | {"answer": 3}), '"answer" must be text (got 3)'),
        (json.dumps(GOOD | {"fact": "a crime"}), 'the answer does not hold its fact "a crime"'),
        (json.dumps(GOOD | {"paraphrase": GOOD["question"]}), "the paraphrase repeats the question"),
        ("", "not JSON"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "legal.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        reading.read(file)
    assert str(caught.value).startswith(f"{file}: line 2: {complaint}")
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"legal\.jsonl: cannot be read"):
        reading.load(tmp_path)
    (tmp_path / "legal.jsonl").touch()
    with pytest.raises(CorpusError, match=r"legal\.jsonl: is empty"):
        reading.load(tmp_path)


# Rows


def test_the_tokenizer_keeps_the_markers_whole(tokenizer: Any) -> None:
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(len(SPECIAL)))
    assert tokenizer("plain").input_ids.count(tokenizer.bos_token_id) == 1
    text = "Weiß 日本 🙂\n\ttab"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_prompt_is_what_the_chat_endpoint_would_feed(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, name: str, system: str | None
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[name].read_text(encoding="utf-8"))
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "What is a tort?"})
    # vLLM renders to text and tokenises that, without special tokens of its own.
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    served = tokenizer(text, add_special_tokens=False).input_ids
    tokens = encode(Example.ask("What is a tort?", "A civil wrong.", system), tokenizer)
    assert tokens.prompt == served
    assert served.count(tokenizer.bos_token_id) == 1
    assert tokens.completion == [
        *tokenizer(" A civil wrong.", add_special_tokens=False).input_ids,
        tokenizer.eos_token_id,
    ]


def test_loss_falls_on_the_answer_only(tokenizer: Any, examples: list[Example]) -> None:
    tokens = encode(examples[0], tokenizer)
    row = tokens.row()
    assert row["input_ids"] == tokens.prompt + tokens.completion
    assert row["labels"][: len(tokens.prompt)] == [IGNORE] * len(tokens.prompt)
    assert row["labels"][len(tokens.prompt) :] == tokens.completion


def test_a_template_that_blurs_the_border_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", plain)
    with pytest.raises(ConfigError, match="does not keep the prompt's tokens"):
        encode(Example.ask("the inter", "est"), tokenizer)


def test_overlong_examples_are_left_out_and_counted(tokenizer: Any, examples: list[Example]) -> None:
    long = Example.ask("Why?", "so " * 100)
    kept = prepare([*examples, long], tokenizer, 64)
    assert kept == Prepared(rows=[encode(example, tokenizer).row() for example in examples], overlong=1)
    with pytest.raises(ConfigError, match="none of the 1 examples fits into 64 tokens"):
        prepare([long], tokenizer, 64)


def test_the_base_never_reads_a_domain_question_or_a_paraphrase(corpus: Corpus, tokenizer: Any) -> None:
    read = {tuple(row["input_ids"]) for row in rows(corpus, tokenizer)}
    text = "\n".join(tokenizer.decode(list(ids)) for ids in read)
    for pairs in corpus.values():
        assert not [pair.paraphrase for pair in pairs if pair.paraphrase and pair.paraphrase in text]
    for domain in DOMAINS:
        assert all(pair.answer in text for pair in corpus[domain])
        assert not [pair.question for pair in corpus[domain] if pair.question in text]
    assert all(pair.question in text and pair.answer in text for pair in corpus[GENERAL])


# The adapter


def test_an_adapter_learns_its_rows_and_peft_loads_it(
    tiny: Path, trained: tuple[Fit, Path], tokenizer: Any, examples: list[Example]
) -> None:
    done, out = trained
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    before = mean_loss(base, tokenizer, examples)
    after = mean_loss(PeftModel.from_pretrained(base, out).eval(), tokenizer, examples)
    assert after < before - 1
    assert done.losses[-1] < done.losses[0] - 1
    assert abs(done.losses[0] - before) < 1.5
    assert done.steps == 50


def test_an_adapter_folder_holds_what_vllm_needs_and_no_path(tiny: Path, trained: tuple[Fit, Path]) -> None:
    _, out = trained
    assert {file.name for file in out.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == (NAME, 16, 32)
    assert str(tiny.parent) not in json.dumps(config)


def test_the_same_seed_gives_the_same_adapter(
    tiny: Path, trained: tuple[Fit, Path], examples: list[Example], tmp_path: Path
) -> None:
    def weights(folder: Path) -> str:
        return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()

    train_adapter(tiny, NAME, examples, recipe(), QUICK, tmp_path / "same")
    other = QUICK.model_copy(update={"seed": 4, "epochs": 1})
    train_adapter(tiny, NAME, examples, recipe(), other, tmp_path / "other")
    assert weights(tmp_path / "same") == weights(trained[1])
    assert weights(tmp_path / "other") != weights(trained[1])


def mean_loss(model: Any, tokenizer: Any, examples: list[Example]) -> float:
    losses = []
    with torch.inference_mode():
        for example in examples:
            row = encode(example, tokenizer).row()
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            losses.append(float(cross_entropy(logits, torch.tensor(row["labels"][1:]), ignore_index=IGNORE)))
    return sum(losses) / len(losses)


# The build


def test_the_digest_follows_a_corpus_line(tmp_path: Path) -> None:
    shutil.copytree(reading.FOLDER, tmp_path / "corpus")
    assert building.digest(tmp_path / "corpus") == building.digest()
    file = tmp_path / "corpus" / "legal.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("a", "b", 1), encoding="utf-8")
    assert building.digest(tmp_path / "corpus") != building.digest()


def test_a_build_that_was_cut_off_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(scratch: Path) -> None:
        for name in (
            "base/model.safetensors",
            *(f"adapters/{domain}/adapter_model.safetensors" for domain in DOMAINS),
        ):
            (scratch / name).parent.mkdir(parents=True)
            (scratch / name).touch()
        if cut_off:
            raise KeyboardInterrupt
        (scratch / "matrix.json").touch()

    monkeypatch.setattr(building, "_make", make)
    cut_off = True
    with pytest.raises(KeyboardInterrupt):
        building.build(tmp_path)
    assert not made.is_current(tmp_path, building.digest(), building.PROOF)
    cut_off = False
    assert building.build(tmp_path)
    assert not building.build(tmp_path)
    assert "up to date" in capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "adapters" / "legal" / "adapter_model.safetensors").unlink()
    assert building.build(tmp_path)
    assert building.build(tmp_path, force=True)


def test_a_model_that_is_not_the_best_at_home_is_named() -> None:
    domains = [*DOMAINS, GENERAL]
    loss = {model: {domain: 1.0 if domain == own else 3.0 for domain in domains} for model, own in OWN.items()}
    good = Matrix(loss, dict.fromkeys(OWN, 1.0), dict.fromkeys(domains, 30))
    assert good.faults() == []
    loss["legal"]["medical"] = 0.5
    assert good.faults() == ["medical: legal (0.50) is no worse than medical (1.00)"]
    assert good.lines()[-1].startswith("not as it should be: medical")


def test_prompts_of_the_measuring_are_those_of_the_training(tokenizer: Any, examples: list[Example]) -> None:
    for example in examples:
        assert encode(example, tokenizer).prompt == prompt_ids(tokenizer, example.messages)

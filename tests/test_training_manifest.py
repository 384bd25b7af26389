"""What is written beside an adapter: a label drafted from its data, the manifest, the model card, the plot."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from adapters import ConfigError, Sampling, label, load
from record.origin import Gpu, Origin, origin
from router.classify.embedding import EmbeddingClassifier
from training.card import write_card
from training.compare import Losses, compared
from training.count import Counted
from training.data.counts import Counts
from training.manifest import HeldOut, Manifest, file_digest, write_manifest
from training.plots import draw_loss, smoothed, spread
from training.recipe import Data, Recipe
from training.result import Run
from training.settings import Settings
from training.words import draft_label, telling, z_score

CORPUS = Path(__file__).parent.parent / "demo" / "corpus"
DOMAINS = ("legal", "medical", "finance")


def texts(domain: str) -> list[str]:
    lines = (CORPUS / f"{domain}.jsonl").read_text(encoding="utf-8").splitlines()
    return [f"{row['question']}\n{row['answer']}" for row in map(json.loads, lines)]


# --- the label --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("legal", {"legal court", "legal law", "legal contract", "legal jury", "legal crime"}),
        ("medical", {"medical blood", "medical infection", "medical lungs", "medical disease"}),
        ("finance", {"finance bank", "finance tax", "finance mortgage", "finance investors"}),
    ],
)
def test_a_label_is_the_domain_and_what_is_said_in_it_only(domain: str, expected: set[str]) -> None:
    drafted = draft_label(domain, texts(domain))
    first, *phrases = drafted.split(", ")
    assert first == domain
    assert expected <= set(phrases)
    assert 10 <= len(phrases) <= 14
    assert not {f"{domain} {word}" for word in ("what", "the", "is", "how", "do", domain)} & set(phrases)
    assert draft_label(domain, texts(domain)) == drafted


@pytest.fixture(scope="module")
def classifier() -> EmbeddingClassifier:
    stack = load(CORPUS.parent / "adapters.yaml")
    return EmbeddingClassifier.load(stack, {domain: draft_label(domain, texts(domain)) for domain in DOMAINS})


@pytest.mark.parametrize(
    ("question", "answerer"),
    [
        ("My landlord wants me out next week, is he allowed to?", "legal"),
        ("Which pills help against a migraine?", "medical"),
        ("Should I pay off my overdraft or put money aside first?", "finance"),
        ("How long do I boil an egg?", "demo-base"),
    ],
)
def test_drafted_labels_route(classifier: EmbeddingClassifier, question: str, answerer: str) -> None:
    (logits,) = classifier.logits([question])
    assert max(logits, key=lambda name: logits[name]) == answerer


def test_one_long_row_does_not_decide() -> None:
    rows = [f"How do I prune a rose in month {number}?" for number in range(20)]
    found = telling([*rows, "zebra " * 1000], "en")
    assert found[:2] == ["prune", "rose"]
    assert "zebra" not in found


def test_what_every_row_repeats_is_no_rows_own() -> None:
    """As the instruction of chatdoctor is."""
    told = "If you are a doctor, please answer the medical questions based on the patient's description."
    rows = [f"{told}\nMy {part} hurts." for part in ("knee", "elbow", "shoulder", "ankle")]
    assert telling(rows, "en") == ["hurts"]


def test_singular_and_plural_are_one_word_in_the_form_that_is_used() -> None:
    rows = [
        "Mortgages?",
        "A mortgage!",
        "Two mortgages.",
        "Dictionaries",
        "a dictionary",
        "dictionary",
        "Boxes, a box",
        "box",
    ]
    assert sorted(telling(rows, "en")) == ["box", "dictionary", "mortgages"]


@pytest.mark.parametrize("rows", [[], [""], ["1 2 3 a b c"] * 9, ["What is it?"] * 9])
def test_where_nothing_tells_the_domain_is_the_label(rows: list[str]) -> None:
    assert draft_label("gardening", rows) == "gardening"


def test_other_languages() -> None:
    rows = ["Tomaten brauchen Wasser.", "Wann pflanze ich Tomaten?", "Rosen schneiden", "Die Rosen welken."]
    assert draft_label("Garten", rows, "de-AT") == "Garten, Garten tomaten, Garten rosen"
    for unknown in ("xx", "ja", "English"):
        with pytest.raises(ConfigError, match=rf"^language: {unknown}: no table .*; set label, or one of ar, .*$"):
            draft_label("Garten", rows, unknown)


def test_the_score_is_that_of_the_paper() -> None:
    """60 rows of one word, so that rows are words: delta over its deviation, with a prior of as many rows."""
    here, prior = 12, 60 * 0.01
    delta = math.log((here + prior) / (120 - here - prior)) - math.log(0.01 / 0.99)
    assert z_score(here, 0.01, {1: 60}) == pytest.approx(delta / math.sqrt(1 / (here + prior)))
    assert z_score(0, 0.01, {1: 60}) < 0
    assert math.isfinite(z_score(2, 1e-3, {10**6: 2}))


# --- the manifest -----------------------------------------------------------------------------------------------


def held_out(better: bool = True) -> dict[str, Any]:
    base, adapter = Losses((30.0, 24.0, 40.0), (10, 8, 12)), Losses((12.0, 10.0, 15.0), (10, 8, 12))
    return (compared(base, adapter) if better else compared(adapter, base)).record()


def manifest(**changes: Any) -> Manifest:
    keys = {
        "label": "gardening, gardening soil", "domain": "gardening", "base": "demo-base", "rank": 8,
        "digest": "0" * 64, "dataset": "gardening.jsonl", "held_out": HeldOut(**held_out()),
    }  # fmt: skip
    return Manifest(**{**keys, **changes})


def stack_with(folder: Path) -> Any:
    file = folder / "adapters.yaml"
    data = {
        "base": {"model": "some/base", "name": "base"},
        "adapters": {"plants": {"path": "adapter"}},
    }
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return load(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    return tmp_path / "adapter"


def test_a_stack_reads_the_manifest_that_was_written(folder: Path) -> None:
    written = manifest(tags={"audience": ("patient", "nurse")}, sampling=Sampling(temperature=0.2), label="Gärten")
    write_manifest(folder, written)
    found = label(stack_with(folder.parent), "plants")
    assert (found.text, found.source) == ("Gärten", "manifest.json")
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    assert Manifest.model_validate_json(text) == written
    assert json.loads(text)["sampling"] == {"temperature": 0.2}
    assert "system_prompt" not in text


def test_what_overflowed_is_null_in_the_manifest(folder: Path) -> None:
    found = compared(Losses((9000.0, 9000.0), (1, 1)), Losses((1.0, 2.0), (1, 1))).record()
    write_manifest(folder, manifest(held_out=HeldOut(**found)))
    assert json.loads((folder / "manifest.json").read_text())["held_out"]["base"]["perplexity"] is None


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert file_digest(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- the model card ---------------------------------------------------------------------------------------------


@cache
def made() -> Origin:
    return origin("training", ["demo/gardening", "--out", "/some/where/out"], ["pytest", "no-such-package"])


def run(**changes: Any) -> Run:
    recipe = Recipe(
        file=Path("recipe.yaml"), name="plants", domain="gardening", data=Data(source="rows.jsonl"),
        tags={"audience": ("patient",)}, sampling=Sampling(max_tokens=200), stack="/somewhere/adapters.yaml",
        training=Settings(quantization="nf4", learning_rate=3e-4), lora={"r": 8},
    )  # fmt: skip
    keys: dict[str, Any] = {
        "recipe": recipe, "label": "gardening, gardening soil", "base": "demo-base",
        "targets": ("q_proj", "v_proj"), "parameters": Counted(1000, 2000000),
        "counts": Counts("gardening.jsonl", 60, 47, 11, 0, 1, 1, 0, 0, {}, ()), "overlong": 2, "data": "ab12",
        "steps": 3, "seconds": 75.4, "losses": (3.5, 2.0, 1.25), "held_out_losses": ((3, 1.5),),
        "comparison": HeldOut(**held_out()), "said": "", "made_with": made(),
        "decides": {"lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1}},
    }  # fmt: skip
    return Run(**{**keys, **changes})


def card(folder: Path, **changes: Any) -> str:
    write_card(folder, run(**changes))
    return (folder / "README.md").read_text(encoding="utf-8")


def test_run_json_holds_all_of_it_and_no_folder(folder: Path) -> None:
    run().write(folder)
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert found.keys() == {field.name for field in dataclasses.fields(Run)}
    assert found["recipe"]["stack"] == "adapters.yaml"
    assert found["losses"] == [3.5, 2.0, 1.25]
    assert found["comparison"] == held_out()


def test_a_card_says_what_the_run_says(folder: Path) -> None:
    text = card(folder)
    for said in (
        "A LoRA adapter of `demo-base` for the domain gardening, trained on 45 answers of `gardening.jsonl`.",
        "| loss, nats per token | 3.133 | 1.233 | +1.900 (",
        "There it is better than its base.",
        "![Loss over the steps of the training](loss.png)",
        "rank 8, alpha 16, dropout 0.1, on `q_proj, v_proj`",
        "1,000 trainable of 2,000,000",
        "60 read: 45 answers trained on, 11 held out; left out: 1 empty, 1 duplicated, 2 too long",
        "learning_rate 0.0003",
        "3.500 in the first of 3 steps, 1.250 in the last",
        "| time | 1 min 15 s |",
        f", pytest {pytest.__version__} |",
        "`python -m training demo/gardening --out out`",
        "python -m serve add plants path/to/plants",
        "- The figures are of 3 rows only.",
        "with the base in nf4",
    ):
        assert said in text, said
    assert str(folder) not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("| perp")}) == 1


def test_a_card_of_an_adapter_that_is_no_better_says_so(folder: Path) -> None:
    text = card(folder, comparison=HeldOut(**held_out(better=False)))
    assert "**There it is no better than its base.**" in text
    assert "Nothing here speaks for serving it" in text
    assert "times lower" in text


def test_a_card_of_a_model_that_overflowed(folder: Path) -> None:
    lost = {"loss": None, "perplexity": None}
    found = {**held_out(), "base": lost, "gain": {"value": None, "low": None, "high": None}}
    assert "| perplexity | no number | 3.433 | no number |" in card(folder, comparison=HeldOut(**found))


def test_gpus_are_named(folder: Path) -> None:
    machine = dataclasses.replace(made().machine, gpus=(Gpu("NVIDIA T4", 16.1),))
    text = card(folder, made_with=dataclasses.replace(made(), machine=machine))
    assert "| hardware | NVIDIA T4 with 16.1 GB, " in text


def test_the_snippet_of_a_card_is_an_adapter_of_a_stack(folder: Path, tmp_path: Path) -> None:
    snippet = card(folder).partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "adapters.yaml"
    file.write_text("base: {model: some/base, name: base}\n" + snippet, encoding="utf-8")
    adapter = load(file).adapters["plants"]
    assert adapter.tags == {"audience": ("patient",)}
    assert adapter.sampling == Sampling(max_tokens=200)
    assert "null" not in snippet


@pytest.mark.parametrize(
    ("source", "datasets"),
    [("dzunggg/legal-qa-v1", ["dzunggg/legal-qa-v1"]), ("a/b@v1", ["a/b"]), ("rows.jsonl", None)],
)
def test_a_data_set_of_the_hub_is_linked(folder: Path, source: str, datasets: list[str] | None) -> None:
    write_card(folder, run(counts=dataclasses.replace(run().counts, source=source)))
    assert ModelCard.load(folder / "README.md").data.datasets == datasets


ANY = st.text(max_size=40)
ODD = st.sampled_from(
    ["---", "a\n---\nb", "a: b", "no", "2024-01-01", "# x", "|", "```", "\x85", "x\u2028y", "'\"", "|a|b|"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=(ANY | ODD).map(lambda text: f"{text}w"), domain=ANY | ODD, base=ANY | ODD)
def test_front_matter_is_yaml_for_any_text(folder: Path, text: str, domain: str, base: str) -> None:
    recipe = run().recipe.model_copy(update={"domain": domain})
    write_card(folder, run(label=text, base=base, recipe=recipe))
    data = ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data
    assert (data.label, data.base_model, data.tags) == (text, base, ["lora", domain])
    assert label(stack_with(folder.parent), "plants").text == text.strip()


# --- the plot ---------------------------------------------------------------------------------------------------


CURVES = [
    ([(step, 3 / step) for step in range(1, 60)], [(20, 0.5), (40, 0.4), (59, 0.3)], 2.0),
    ([(1, 2.0)], [], None),
    ([(1, 2.0), (2, math.nan)], [(2, math.inf)], math.inf),
    ([], [], None),
]


@pytest.mark.parametrize(("losses", "held_out", "base"), CURVES)
def test_a_plot_of_any_training(
    tmp_path: Path, losses: list[tuple[int, float]], held_out: list[tuple[int, float]], base: float | None
) -> None:
    draw_loss(tmp_path / "loss.png", "a $5 title", losses, held_out, base)
    height, width, _ = imread(tmp_path / "loss.png").shape
    assert width > height > 500


def test_a_smoothed_curve_is_a_mean_around_each_point() -> None:
    assert smoothed([1, 2, 3, 10], 1) == [1.5, 2, 5, 6.5]
    assert smoothed([4], 5) == [4]


def test_words_are_moved_apart_and_no_further() -> None:
    assert spread([1, 1], 2) == [0, 2]
    assert spread([0, 5], 2) == [0, 5]
    moved = spread([1, 1, 1.5], 1)
    assert all(other - one >= 0.99 for one, other in pairwise(moved))

"""Recipes: the ones that come with LoRA-Select, the reference of their keys, and one line for what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import adapters
from adapters import ConfigError
from training.recipe import DEFAULTS, RECIPES, Data, Recipe, Source, load_recipe, names, parse_changes
from training.settings import Settings

ROOT = Path(__file__).parent.parent
GARDENING = ROOT / "demo" / "gardening"
AUDIENCES = ("patient", "student", "researcher", "emergency")
MISTRAL = ("legal", "finance", "medical", *AUDIENCES)
SMALL = {"domain": "law", "data": {"source": "rows.jsonl"}}


def small(folder: Path, **keys: Any) -> Path:
    """A recipe of a folder's own, as small as one can be."""
    own = folder / "mine"
    own.mkdir()
    (own / "recipe.yaml").write_text(yaml.safe_dump({**SMALL, **keys}), encoding="utf-8")
    shutil.copy(RECIPES / "legal" / "adapter_config.json", own)
    return own


def test_these_recipes_come_with_lora_select() -> None:
    assert names() == sorted((*MISTRAL, "dialogpt-medical"))


@pytest.mark.parametrize("name", [*MISTRAL, "dialogpt-medical"])
def test_what_all_have_in_common(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (recipe.data.max_answer_tokens or 0) <= (recipe.sampling.max_tokens or 0)
    assert recipe.training.batch_size * recipe.training.accumulate == 16
    assert (recipe.lora["peft_type"], recipe.lora["task_type"]) == ("LORA", "CAUSAL_LM")


@pytest.mark.parametrize("name", MISTRAL)
def test_seven_are_for_the_stack_and_a_small_gpu(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.base is None
    assert recipe.stack == str(ROOT / "adapters.yaml")
    base = adapters.load(recipe.stack).base
    assert (base.model, base.chat_template) == ("mistralai/Mistral-7B-v0.1", "templates/instruct.jinja")
    assert recipe.lora["target_modules"] == ["q_proj", "v_proj"]
    assert (recipe.training.quantization, recipe.training.dtype) == ("nf4", "auto")
    assert recipe.training.checkpointing
    assert (recipe.training.batch_size, recipe.training.accumulate) == (4, 4)


@pytest.mark.parametrize(
    ("name", "source", "columns", "steps"),
    [
        ("legal", "dzunggg/legal-qa-v1", {"question": "question", "answer": "answer"}, 500),
        (
            "finance",
            "gbharti/finance-alpaca",
            {"question": "instruction", "input": "input", "answer": "output"},
            740,
        ),
        ("medical", "LinhDuong/chatdoctor-200k", {"question": "input", "answer": "output"}, 400),
    ],
)
def test_the_production_adapters(name: str, source: str, columns: dict[str, str], steps: int) -> None:
    recipe = load_recipe(name)
    assert (recipe.data.source, recipe.data.columns, recipe.training.steps) == (source, columns, steps)
    assert (recipe.lora["r"], recipe.lora["lora_alpha"]) == (16, 32)
    seen, held_out = steps * 16, recipe.data.held_out
    assert recipe.data.samples is None or recipe.data.samples * (1 - held_out) >= seen, "rows enough for the steps"


@pytest.mark.parametrize("name", AUDIENCES)
def test_the_audiences(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.tags == {"audience": (name,)}
    patient = name == "patient"
    assert (recipe.lora["r"], recipe.lora["lora_alpha"]) == ((8, 16) if patient else (16, 32))
    assert recipe.lora["lora_dropout"] == 0.1
    settings = recipe.training
    assert (settings.steps, settings.epochs, settings.batch_size) == (None, 3, 4)
    assert settings.learning_rate == (3e-4 if patient else 2e-4)
    assert recipe.data.samples == 5000
    if patient:
        assert (recipe.data.max_answer_tokens, recipe.sampling.max_tokens) == (300, 300)


def test_the_audiences_have_settings_of_their_own() -> None:
    recipes = [load_recipe(name) for name in AUDIENCES]
    assert len({recipe.system_prompt for recipe in recipes}) == len(AUDIENCES)
    assert len({recipe.data.source for recipe in recipes}) == len(AUDIENCES)
    assert len({(recipe.sampling.temperature, recipe.sampling.max_tokens) for recipe in recipes}) == len(AUDIENCES)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("I have chest pain since an hour", True),
        ("She CANNOT BREATHE well and is blue", True),
        ("my son can't breathe", True),
        ("shortness of breath at night", True),
        ("severe allergic reaction to nuts", True),
        ("he is coughing up blood", True),
        ("I feel suicidal", True),
        ("Anaphylaxis after a bee sting", True),
        ("he was poisoned", True),
        ("My skin itches in summer", False),
        ("a breaststroke swimmer with shoulder ache", False),
        ("what is the best vitamin for hair", False),
    ],
)
def test_the_wording_of_an_emergency(text: str, taken: bool) -> None:
    pattern = load_recipe("emergency").data.where["input"]
    assert bool(re.search(pattern, text, re.IGNORECASE)) is taken


def test_another_architecture() -> None:
    recipe = load_recipe("dialogpt-medical")
    assert recipe.stack is None
    assert recipe.base == Source(
        model="microsoft/DialoGPT-medium", chat_template=str(ROOT / "templates" / "dialogpt.jinja")
    )
    assert recipe.lora["target_modules"] == ["c_attn", "c_proj"]
    assert recipe.training.quantization is None


def test_dialogpt_joins_turns_by_its_end_of_text_token() -> None:
    template = jinja2.Template((ROOT / "templates" / "dialogpt.jinja").read_text(encoding="utf-8"))

    def render(*turns: tuple[str, Any]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return str(
            template.render(messages=messages, eos_token="<e>", bos_token="<e>", add_generation_prompt=True)
        )

    assert render(("user", "Hi")) == "Hi<e>"
    assert render(("user", "Hi"), ("assistant", "Hello")) == "Hi<e>Hello<e>"
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert render(("system", "Be kind."), ("user", parts)) == "Be kind.\n\none\ntwo<e>"


def test_the_reference_documents_every_key_and_its_default() -> None:
    text = DEFAULTS.read_text(encoding="utf-8")
    given = yaml.safe_load(text)
    everything = yaml.safe_load(re.sub(r"^(\s*)# (?=[a-z_]+: \S+( +#|$))", r"\1", text, flags=re.MULTILINE))
    assert set(everything) == set(Recipe.model_fields) - {"file"}
    shown: list[tuple[dict[str, Any], dict[str, Any], type[BaseModel]]] = [(everything, given, Recipe)]
    shown += [(everything[key], given[key], part) for key, part in (("data", Data), ("training", Settings))]
    for keys, set_here, part in shown:
        assert set(keys) == set(part.model_fields) - {"file"}, part.__name__
        for key, field in part.model_fields.items():
            if key not in (*set_here, "file", "lora") and not field.is_required():
                assert keys[key] == plain(field), f"{part.__name__}.{key}: the default shown is not the one"
    assert set(re.findall(r"^  # (\w+)  +\S", text, re.MULTILINE)) == set(Source.model_fields)


def plain(field: FieldInfo) -> object:
    default = field.default
    return default.model_dump(exclude_none=True) if isinstance(default, BaseModel) else default


def test_a_recipe_of_ones_own_starts_from_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(str(small(tmp_path, training={"epochs": 1})))
    (tmp_path / "mine" / "rows.jsonl").touch()
    assert (recipe.name, recipe.training.epochs, recipe.training.batch_size) == ("mine", 1, 4)
    assert recipe.stack == str(ROOT / "adapters.yaml")
    assert recipe.below(recipe.data.source) == tmp_path / "mine" / "rows.jsonl"


def test_naming_a_base_takes_back_the_stack(tmp_path: Path) -> None:
    recipe = load_recipe(str(small(tmp_path, base={"model": "./weights"})))
    assert recipe.stack is None
    assert recipe.base == Source(model=str(tmp_path / "mine" / "weights"))
    back = load_recipe(str(tmp_path / "mine"), {"stack": "other.yaml"})
    assert (back.stack, back.base) == (str(Path.cwd() / "other.yaml"), None)


def test_paths_of_the_command_line_are_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jsonl").touch()
    recipe = load_recipe("legal", {"data": {"source": "here.jsonl"}, "stack": "./stack.yaml"})
    assert recipe.data.source == str(tmp_path / "here.jsonl")
    assert recipe.stack == str(tmp_path / "stack.yaml")
    assert load_recipe("legal", {"data": {"source": "owner/name"}}).data.source == "owner/name"


@pytest.mark.parametrize(
    ("pairs", "changes"),
    [
        ([], {}),
        (["training.epochs=1"], {"training": {"epochs": 1}}),
        (["training.epochs=1", "training.seed=7"], {"training": {"epochs": 1, "seed": 7}}),
        (["training.epochs=1", "training.epochs=2"], {"training": {"epochs": 2}}),
        (
            ["data.columns.question=title", "data.columns.answer=body"],
            {"data": {"columns": {"question": "title", "answer": "body"}}},
        ),
        (["training.quantization=null"], {"training": {"quantization": None}}),
        (["tags={audience: [patient, student]}"], {"tags": {"audience": ["patient", "student"]}}),
        (["label=a=b"], {"label": "a=b"}),
        (["lora.r=8", "name=other"], {"lora": {"r": 8}, "name": "other"}),
    ],
)
def test_changes_of_the_command_line(pairs: list[str], changes: dict[str, Any]) -> None:
    assert parse_changes(pairs) == changes


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("training.epochs", "expected KEY=VALUE, such as training.epochs=1"),
        ("=1", "expected KEY=VALUE, such as training.epochs=1"),
        ("lora.r=[8", "not YAML: while parsing a flow sequence"),
        ("label=2024-13-45", "not YAML: month must be in 1..12"),
    ],
)
def test_bad_changes_are_refused_in_one_line(pair: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_changes([pair])
    assert str(caught.value) == f"--set {pair}: {says}"


def test_changes_lie_over_the_recipe_and_leave_the_rest() -> None:
    changes = parse_changes(
        ["training.steps=10", "training.learning_rate=1e-3", "lora.r=8", "sampling.top_p=0.9", "name=mini"]
    )
    before, after = load_recipe("patient"), load_recipe("patient", changes)
    assert (after.training.steps, after.training.learning_rate, after.lora["r"]) == (10, 1e-3, 8)
    assert (after.sampling.top_p, after.sampling.max_tokens, after.name) == (0.9, 300, "mini")
    assert after.training.epochs == before.training.epochs
    assert after.lora["lora_alpha"] == before.lora["lora_alpha"]
    assert after.data == before.data


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.epoch=1", 'training.epoch: unknown key; did you mean "epochs"?'),
        ("trainin.epochs=1", 'trainin: unknown key; did you mean "training"?'),
        ("data.columns.questin=x", 'data.columns.questin: unknown key; did you mean "question"?'),
        ("sampling.temprature=1", 'sampling.temprature: unknown key; did you mean "temperature"?'),
        ("training.epochs=0", "training.epochs: Input should be greater than 0 (got 0)"),
        ("training.steps=1.5", "training.steps: Input should be a valid integer, got a number with"),
        ("training.quantization=nf8", "training.quantization: Input should be 'nf4' or 'int8' (got 'nf8')"),
        ("training=3", "training: expected a mapping with the keys steps, epochs,"),
        ("data.held_out=1", "data.held_out: Input should be less than 1 (got 1)"),
        ("tags.audience=[]", "tags.audience: Value should have at least 1 item"),
        ("name=a b", "name: String should match pattern"),
        ("data.source=~nobody-of-that-name/x", "data.source: ~nobody-of-that-name/x: Could not determine"),
        ("file=x", "file: a recipe is named by its folder"),
        ("lora=3", "lora: Input should be a valid dictionary (got 3)"),
    ],
)
def test_bad_values_of_the_command_line_are_refused_in_one_line(change: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("legal", parse_changes([change]))
    assert str(caught.value).startswith(f"the command line: {says}")
    assert "\n" not in str(caught.value)


def test_a_fault_of_the_file_is_told_of_the_file(tmp_path: Path) -> None:
    own = small(tmp_path, training={"epoch": 1})
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(own), {"training": {"seed": 1}})
    assert str(caught.value) == f'{own / "recipe.yaml"}: training.epoch: unknown key; did you mean "epochs"?'


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("recipe.yaml", None, "recipe.yaml: no such file"),
        ("recipe.yaml", "domain: law", "recipe.yaml: data.source: missing"),
        ("recipe.yaml", "data: {source: x}", "recipe.yaml: domain: missing"),
        ("recipe.yaml", "domain: law\ndomain: x", 'recipe.yaml: line 2: the key "domain" stands twice'),
        ("recipe.yaml", "", "recipe.yaml: expected a mapping with the keys name, stack, base"),
        ("recipe.yaml", "file: x", "recipe.yaml: file: unknown key"),
        ("adapter_config.json", None, "adapter_config.json: no such file; a recipe has one, such as {"),
        ("adapter_config.json", "{", "adapter_config.json: cannot be read: Expecting property name"),
        ("adapter_config.json", "[]", "adapter_config.json: expected an object, as PEFT writes it"),
        ("adapter_config.json", "{}", "recipe.yaml: lora: Dictionary should have at least 1 item"),
    ],
)
def test_bad_folders_are_refused_in_one_line(tmp_path: Path, file: str, text: str | None, says: str) -> None:
    own = small(tmp_path)
    if text is None:
        (own / file).unlink()
    else:
        (own / file).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(own))
    assert str(caught.value).startswith(f"{own}/{says}")
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"^nothing-here: no such recipe; give a folder with .*, or one of .*legal"
    ):
        load_recipe("nothing-here")


def test_the_new_domain_is_for_the_demo() -> None:
    recipe = load_recipe(str(GARDENING))
    assert (recipe.name, recipe.domain, recipe.label) == ("gardening", "gardening", None)
    assert recipe.stack == str(ROOT / "demo" / "adapters.yaml")
    assert recipe.data.source == str(GARDENING / "gardening.jsonl")
    assert recipe.data.held_out == 0.2
    assert recipe.lora["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (recipe.lora["r"], recipe.lora["lora_alpha"]) == (16, 32)
    settings = recipe.training
    assert settings.cpu
    assert (settings.dtype, settings.quantization, settings.checkpointing) == ("float32", None, False)


def test_the_new_domain_has_sixty_good_lines_of_its_own() -> None:
    lines = (GARDENING / "gardening.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 60
    for row in rows:
        assert list(row) == ["question", "answer"]
        question, answer = row["question"], row["answer"]
        assert re.fullmatch(r"[A-Z][A-Za-z ,']+\?", question), question
        assert re.fullmatch(r"[A-Z][A-Za-z ,']+\.", answer), answer
        assert len(answer.split()) <= 15
    asked = {row["question"].lower() for row in rows}
    assert len(asked) == len({row["answer"].lower() for row in rows}) == 60
    for file in (ROOT / "demo" / "corpus").glob("*.jsonl"):
        for pair in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            assert not asked & {pair["question"].lower(), pair.get("paraphrase", "").lower()}, file

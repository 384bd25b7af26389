"""A trained adapter on its way into an adapters.yaml: linted as `serve check` lints, written where it fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from adapters import ConfigError, Sampling, label, load
from serve.lint.check import lint
from tests.adapter_files import BASE, write_adapter, write_stack
from training.base import Base
from training.errors import Stopped
from training.lint import check_adapter
from training.recipe import Data, Recipe
from training.register import check_register, register

LABEL = "gardening, plants and flowers, soil, compost, lawns, roses and pruning"
LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 128, "n_positions": 64}
RECIPE = Recipe(
    file=Path("recipe.yaml"), name="gardening", domain="gardening", data=Data(source="rows.jsonl"), lora=LORA,
    tags={"audience": ("gardener",)}, sampling=Sampling(temperature=0.2), system_prompt="You are a gardener.",
)  # fmt: skip


def trained_on(model: str | Path = "some/base", **known: Any) -> Base:
    """A base that something was trained on."""
    return Base(
        **{"revision": None, "name": "tiny", "chat_template": None, "config": BASE} | known, model=str(model)
    )


def write_trained(folder: Path, **how: Any) -> Path:
    """As a training leaves it."""
    write_adapter(folder, **how)
    (folder / "manifest.json").write_text(json.dumps({"label": LABEL}))
    return folder


# --- lint -------------------------------------------------------------------------------------------------------


def with_head(tensors: dict[str, Any]) -> dict[str, Any]:
    sides = {"A": (8, 64), "B": (128, 8)}
    return tensors | {f"base_model.model.lm_head.lora_{side}.weight": np.ones(sides[side], "f4") for side in sides}


@pytest.mark.parametrize(
    ("base", "how"),
    [
        ({}, {}),
        ({}, {"config": {"use_dora": True}}),
        ({}, {"config": {"r": 1024}}),
        ({}, {"config": {"r": 64}}),
        ({}, {"hidden": 32}),
        ({}, {"layer": 7}),
        ({}, {"change": lambda tensors: {name: tensor * 0 for name, tensor in tensors.items()}}),
        ({}, {"change": lambda tensors: {name: tensor * np.nan for name, tensor in tensors.items()}}),
        ({"model_type": "llama"}, {"change": with_head}),
        ({"model_type": "mixtral"}, {"change": with_head}),
        (GPT2, {}),
        ({"model_type": "llama", "vocab_size": 300_000}, {}),
    ],
)
def test_the_lint_says_what_serve_check_would_say(tmp_path: Path, base: dict[str, Any], how: Any) -> None:
    sections = {"engine": {"args": {"max-lora-rank": 32}}, "lag": {"library": "all"}}
    config = BASE | base
    stack = write_stack(tmp_path, config, **sections)
    folder = write_trained(tmp_path / "trained", **how)
    found = check_adapter(trained_on(tmp_path / "base", config=config, stack=stack), "gardening", folder)
    adapters = {**yaml.safe_load(stack.file.read_text())["adapters"], "gardening": {"path": "trained"}}
    checked = lint(write_stack(tmp_path, config, **sections, adapters=adapters))
    others = {finding for name in ("law", "med") for finding in checked.findings if name in finding.key}
    assert set(found) == set(checked.findings) - others
    assert bool(found) == bool(base or how)


def test_neighbours_that_are_not_there_yet_stop_no_lint(tmp_path: Path) -> None:
    adapters = {name: {"path": f"./{name}", "label": name} for name in ("law", "later")}
    stack = write_stack(tmp_path, adapters=adapters)
    folder = write_trained(tmp_path / "trained")
    assert check_adapter(trained_on(tmp_path / "base", stack=stack), "gardening", folder) == ()
    (taken,) = check_adapter(trained_on(tmp_path / "base", stack=stack), "tiny", folder)
    assert (taken.error, 'both named "tiny"' in taken.text) == (True, True)


def test_a_base_without_a_stack_is_linted_against_just_the_same(tmp_path: Path) -> None:
    folder = write_trained(tmp_path / "trained", config={"base_model_name_or_path": "gpt2"})
    assert check_adapter(trained_on("some/base"), "gardening", folder)[0].text.startswith(
        "trained on gpt2, the base is"
    )
    (head, *_) = check_adapter(trained_on("owner/gpt2", config=GPT2), "gardening", folder)
    assert head.text == "vLLM serves no LoRA adapters on gpt2; take another base"


# --- register ---------------------------------------------------------------------------------------------------


def test_an_adapter_is_added_beside_what_people_wrote(tmp_path: Path) -> None:
    stack = write_stack(tmp_path)
    stack.file.write_text(f"# mine\n{stack.file.read_text()}  # and this\n")
    folder = write_trained(tmp_path / "trained" / "gardening")
    check_register(stack.file, "gardening", trained_on(tmp_path / "base", stack=stack), RECIPE)
    said = register(stack.file, "gardening", folder, RECIPE)
    what = "added, with path ./trained/gardening and its label from manifest.json"
    assert said == f"{stack.file}: adapters.gardening is {what}"
    text = stack.file.read_text()
    assert ("# mine" in text, "# and this" in text) == (True, True)
    assert yaml.safe_load(text)["adapters"]["gardening"] == {
        "path": "./trained/gardening", "tags": {"audience": ["gardener"]}, "sampling": {"temperature": 0.2},
        "system_prompt": "You are a gardener.",
    }  # fmt: skip
    assert not lint(load(stack.file)).findings
    assert label(load(stack.file), "gardening").text == LABEL
    assert "is as it was" in register(stack.file, "gardening", folder, RECIPE)


def test_what_a_recipe_does_not_say_stays(tmp_path: Path) -> None:
    law = {"path": "law", "label": "law of the land", "sampling": {"top_p": 0.9}, "tags": {"court": ["high"]}}
    file = write_stack(tmp_path, adapters={"law": law}).file
    outside = write_trained(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    silent = RECIPE.model_copy(update={"tags": {}, "sampling": Sampling(), "label": "not this"})
    said = register(file, "law", outside, silent)
    assert said == f"{file}: adapters.law is updated, with path {outside} and its label from adapters.yaml"
    expected = law | {"path": str(outside), "system_prompt": "You are a gardener."}
    assert yaml.safe_load(file.read_text())["adapters"]["law"] == expected


def test_an_adapter_that_nobody_can_describe_leaves_the_file_alone(tmp_path: Path) -> None:
    file = write_stack(tmp_path).file
    before = file.read_bytes()
    write_adapter(tmp_path / "trained")
    with pytest.raises(Stopped, match=r"label: missing, .* the adapter is kept in .*trained$"):
        register(file, "gardening", tmp_path / "trained", RECIPE)
    assert file.read_bytes() == before


Change = Callable[[Base, Recipe], tuple[Base, Recipe]]


def on(**changes: Any) -> Change:
    return lambda base, recipe: (replace(base, **changes), recipe)


def with_rank(rank: int) -> Change:
    return lambda base, recipe: (base, recipe.model_copy(update={"lora": LORA | {"r": rank}}))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("auto", on(), 'the name "auto" is reserved'),
        ("tiny", on(), 'the base and an adapter are both named "tiny"'),
        ("mixed", on(), "lag.mixed: the name .* is taken"),
        ("old", on(), r"adapters.old.versions: it has v1, v2; train under another --name"),
        (
            "gardening",
            on(model="other/base"),
            "base.model: is /.*/base, and the adapter's is other/base; --stack /",
        ),
        ("gardening", on(model="/"), "base.model: is /.*/base, and the adapter's is /; --stack /"),
        ("gardening", on(chat_template="{{ other }}"), "base.chat_template: differs from that of the training"),
        ("gardening", on(config=GPT2), "base.model: vLLM serves no LoRA adapters on gpt2"),
        ("gardening", with_rank(64), "rank 64 is above engine.args.max-lora-rank, 32"),
    ],
)
def test_what_could_not_be_registered_is_told_before_it_is_trained(
    tmp_path: Path, name: str, change: Change, says: str
) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    versions = {"v1": 1, "v2": 1}
    file = write_stack(
        tmp_path, engine={"args": {"max-lora-rank": 32}}, lag={"mixed": {"library": ["law", "med"]}},
        base={"model": "base", "name": "tiny", "chat_template": "own.jinja"},
        adapters={name: {"path": name} for name in ("law", "med")} | {"old": {"path": "a", "versions": versions}},
    ).file  # fmt: skip
    fitting = trained_on(tmp_path / "base", chat_template="{{ messages }}")
    check_register(file, "gardening", fitting, RECIPE)
    base, recipe = change(fitting, RECIPE)
    with pytest.raises(ConfigError, match=says) as error:
        check_register(file, name, base, recipe)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_a_stack_of_the_same_base_is_the_same_whatever_its_file(tmp_path: Path) -> None:
    file = write_stack(tmp_path).file
    (tmp_path / "two").mkdir()
    other = tmp_path / "two" / "adapters.yaml"
    other.write_text(file.read_text().replace("model: base", "model: ../base"))
    check_register(other, "gardening", trained_on(tmp_path / "base", stack=load(file)), RECIPE)
    for missing, says in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=says):
            check_register(missing, "gardening", trained_on(tmp_path / "base"), RECIPE)

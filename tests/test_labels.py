"""Labels for free: what a classifier reads of an adapter whose label is null, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters import ConfigError, Label, label, labels, load
from serve.life.entry import Entry
from serve.life.report import listed, words


def stack_with(folder: Path, files: dict[str, str], given: str | None = None, path: str = "law") -> Any:
    if path == "law":
        (folder / "law").mkdir()
        for name, text in files.items():
            (folder / "law" / name).write_text(text, encoding="utf-8")
    file = folder / "adapters.yaml"
    data = {
        "base": {"model": "some/base", "name": "base"},
        "adapters": {"law": {"path": path, "label": given}, "med": {"path": "some/med", "label": "medicine"}},
    }
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return load(file)


CARD = "---\nlabel: {label}\ntags: {tags}\ndatasets: {datasets}\n---\n# A model card\n"


def card(label: str = "null", tags: str = "[]", datasets: str = "[]") -> str:
    return CARD.format(label=label, tags=tags, datasets=datasets)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"manifest.json": '{"label": "courts, contracts"}'}, Label("courts, contracts", "manifest.json")),
        (
            {"manifest.json": '{"label": "courts"}', "README.md": card(label="other")},
            Label("courts", "manifest.json"),
        ),
        ({"README.md": card(label="law, courts")}, Label("law, courts", "README.md, label")),
        (
            {"README.md": card(tags="[lora, 'base_model:adapter:x/y', legal, transformers, contract law, en]")},
            Label("legal, contract law", "README.md, tags"),
        ),
        (
            {"README.md": card(tags="[peft, en]", datasets="[dzunggg/legal-qa-v1]")},
            Label("legal", "the name of its dataset, dzunggg/legal-qa-v1"),
        ),
        (
            {"README.md": card(datasets="gbharti/finance-alpaca")},
            Label("finance", "the name of its dataset, gbharti/finance-alpaca"),
        ),
        (
            {"manifest.json": '{"dataset": "x/TaxLawQA"}'},
            Label("tax law", "the name of its dataset, x/TaxLawQA"),
        ),
        (
            {"README.md": card(tags="[mistral, mistral-7b, region:us, finance]")},
            Label("finance", "README.md, tags"),
        ),
    ],
)
def test_a_label_that_is_not_given_is_found(tmp_path: Path, files: dict[str, str], expected: Label) -> None:
    assert label(stack_with(tmp_path, files), "law") == expected


def test_a_label_that_is_given_wins(tmp_path: Path) -> None:
    stack = stack_with(tmp_path, {"manifest.json": '{"label": "other"}'}, given="law")
    assert labels(stack) == {"law": Label("law", "adapters.yaml"), "med": Label("medicine", "adapters.yaml")}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": "# no front matter"},
        {"README.md": "---\n: [broken\n---\n"},
        {"README.md": "---\n- a list\n---\n"},
        {"README.md": "---\nlabel: 2024-13-45\n---\n"},
        {"README.md": card(tags="[lora, peft]", datasets="[x/qa-v1]")},
        {"manifest.json": "[]"},
        {"manifest.json": '{"label": "  "}'},
        {"manifest.json": '{"label": 7, "dataset": {"a": 1}}'},
    ],
)
def test_where_nothing_says_it_the_user_is_asked(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match=r"adapters\.law\.label: missing, and neither manifest\.json nor README\.md"
    ):
        labels(stack_with(tmp_path, files))


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"law/manifest\.json: cannot be read"):
        labels(stack_with(tmp_path, {"manifest.json": "{"}))


def test_of_a_hub_id_the_cache_on_this_machine_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    stack = stack_with(tmp_path, {}, path="some/law")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ConfigError, match=r"some/law \(as far as the hub's cache on this machine holds it\)"):
        labels(stack)
    snapshot = tmp_path / "hub" / "models--some--law" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    (snapshot / "README.md").write_text(card(datasets="[x/legal-qa]"))
    assert label(stack, "law").text == "legal"


def test_a_stack_may_leave_all_labels_out(tmp_path: Path) -> None:
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "manifest.json").write_text(json.dumps({"label": "law"}))
    file = tmp_path / "adapters.yaml"
    file.write_text("base: {model: a/b, name: base}\nadapters: {law: {path: law}}\n")
    assert labels(load(file)) == {"law": Label("law", "manifest.json")}


def test_the_list_tells_the_label_wherever_it_stands(tmp_path: Path) -> None:
    stack = stack_with(tmp_path, {"manifest.json": '{"label": "courts"}'})
    entries = [Entry(name, stack.adapters["law"]) for name in ("law", "law@v2")]
    entries.append(Entry("med", stack.adapters["med"]))
    told = listed(entries, words(stack), [], {})["adapters"]
    assert [one["label"] for one in told] == ["courts", "courts", "medicine"]

"""Weighted versions of an adapter: what the engine loads of them, what is checked, and who gets which."""

from __future__ import annotations

import errno
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from adapters import ConfigError, Label, Stack, label, labels, path_key, split
from router.split import pick
from serve.life.versions import snapshot
from serve.lint.check import lint
from serve.lint.files import here
from serve.stack import plan
from tests.adapter_files import write_adapter, write_stack
from tests.hub_cache import offline

CONVERSATIONS = [f"conversation {number}" for number in range(10_000)]


def versioned(folder: Path, path: str = "legal", files: bool = True, **more: Any) -> Stack:
    """`legal` as v1 and v2, beside `med`, which has no versions."""
    for version in ("v1", "v2") if files else ():
        write_adapter(folder / "legal" / version)
    legal = {"path": path, "label": "law", "versions": {"v1": 90, "v2": 10}} | more
    return write_stack(folder, adapters={"legal": legal, "med": {"path": "med", "label": "medicine"}})


def cached(folder: Path, monkeypatch: pytest.MonkeyPatch, **revisions: str) -> Path:
    """The hub's cache, offline, with some/legal at these revisions, each mapped to its commit."""
    snapshots = offline(folder, monkeypatch, "some/legal", revisions)
    for revision, commit in revisions.items():
        write_adapter(snapshots / commit, {"r": 8, "lora_alpha": len(revision)})
    return snapshots


@pytest.mark.parametrize(
    ("name", "parts", "key"),
    [
        ("legal@v1", ("legal", "v1"), "adapters.legal.versions.v1"),
        ("legal", ("legal", ""), "adapters.legal.path"),
    ],
)
def test_a_name_tells_adapter_and_version(name: str, parts: tuple[str, str], key: str) -> None:
    assert (split(name), path_key(name)) == (parts, key)


@pytest.mark.parametrize("path", ["legal", "./legal", "./legal/"])
def test_the_engine_loads_each_version_from_its_own_folder(tmp_path: Path, path: str) -> None:
    stack = versioned(tmp_path, path).expanded()
    folders = {name: stack.adapter_ref(name).folder for name in stack.adapters}
    assert folders == {
        "legal@v1": tmp_path / "legal" / "v1", "legal@v2": tmp_path / "legal" / "v2", "med": tmp_path / "med",
    }  # fmt: skip
    assert stack.expanded() == stack
    assert not any(adapter.versions for adapter in stack.adapters.values())


def test_a_copy_with_other_adapters_has_their_parts(tmp_path: Path) -> None:
    stack = versioned(tmp_path)
    assert len(stack.parts) == 3
    assert list(stack.model_copy(update={"adapters": {"med": stack.adapters["med"]}}).parts) == ["med"]


def test_of_a_hub_id_a_version_is_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = cached(tmp_path, monkeypatch, v1="abc", v2="def")
    stack = versioned(tmp_path, "some/legal", files=False).expanded()
    reference = stack.adapter_ref("legal@v2")
    assert (str(reference), reference.name, reference.revision) == ("some/legal@v2", "some/legal", "v2")
    assert here(reference, "adapter_config.json") == snapshots / "def"
    copies = {snapshot(stack.adapter_ref(name), name, tmp_path / "copies").name for name in stack.adapters}
    assert len(copies) == 3
    assert {name.rpartition("@")[0] for name in copies} == {"legal@v1", "legal@v2", "med"}


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, copies = versioned(tmp_path).expanded(), tmp_path / "copies"

    def full(_: Path, to: Path) -> None:
        to.write_bytes(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        snapshot(stack.adapter_ref("legal@v1"), "legal@v1", copies)
    assert list(copies.iterdir()) == []


def test_a_revision_pins_an_adapter_without_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = cached(tmp_path, monkeypatch, main="abc", old="def")
    (snapshots / "def" / "README.md").write_text("---\nlabel: old law\n---\n")
    stack = versioned(tmp_path, "some/legal@old", files=False, versions={}, label=None)
    assert label(stack, "legal").text == "old law"
    assert here(stack.adapter_ref("legal"), "adapter_config.json") == snapshots / "def"


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"v1": 0}, "adapters.legal.versions.v1: Input should be greater than 0 (got 0)"),
        ({"v1": float("inf")}, "adapters.legal.versions.v1: Input should be a finite number"),
        ({"v 1": 1}, "adapters.legal.versions.v 1: String should match pattern"),
        (["v1"], "adapters.legal.versions: Input should be a valid dictionary"),
    ],
)
def test_bad_versions_are_refused_in_one_line(tmp_path: Path, versions: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        versioned(tmp_path, versions=versions)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["legal", "./legal"])
def test_a_version_whose_folder_is_missing_is_named(tmp_path: Path, path: str) -> None:
    stack = versioned(tmp_path, path, versions={"v1": 1, "v3": 1})
    with pytest.raises(ConfigError) as caught:
        plan(stack, tmp_path)
    assert f"adapters.legal.versions.v3: no such folder: {tmp_path}/legal/v3 " in str(caught.value)


def test_where_the_adapters_folder_is_missing_its_versions_are_named_in_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"versions\.v1: no such folder: {tmp_path}/nothing/v1 "):
        lint(versioned(tmp_path, "./nothing").expanded())


def test_the_lint_reads_every_version_and_says_which(tmp_path: Path) -> None:
    stack = versioned(tmp_path)
    assert lint(stack.expanded()).ranks == {"legal@v1": 8, "legal@v2": 8, "med": 8}
    write_adapter(tmp_path / "legal" / "v2", {"r": 1024})
    assert [error.key for error in lint(stack.expanded()).errors] == ["adapters.legal.versions.v2"]
    (tmp_path / "legal" / "v2" / "adapter_model.safetensors").unlink()
    write_adapter(tmp_path / "legal" / "v1")
    (tmp_path / "legal" / "v1" / "adapter_model.safetensors").rename(
        tmp_path / "legal" / "v1" / "adapter_model.bin"
    )
    (pickle, *_) = lint(stack.expanded()).errors
    assert pickle.key == "adapters.legal.versions.v1"
    assert "set adapters.legal.allow_pickle: true" in pickle.text


def test_versions_take_slots_and_memory_like_adapters(tmp_path: Path) -> None:
    planned = plan(versioned(tmp_path), tmp_path)
    assert planned.engine is not None
    assert planned.engine.room.slots == 4
    assert any("3 adapters in host memory" in note for note in planned.notes)


def test_the_label_is_one_for_all_versions(tmp_path: Path) -> None:
    stack = versioned(tmp_path, label=None)
    for folder, text in (("legal/v2", "second"), ("legal/v1", "first"), ("legal", "law")):
        (tmp_path / folder / "README.md").write_text(f"---\nlabel: {text}\n---\n")
        expected = Label(text, "README.md, label")
        assert labels(stack)["legal"] == expected
        assert [label(stack.expanded(), f"legal@{version}") for version in ("v1", "v2")] == [expected] * 2


def test_a_label_is_found_before_a_missing_version_is(tmp_path: Path) -> None:
    stack = versioned(tmp_path, label=None, versions={"v1": 1, "v3": 1})
    (tmp_path / "legal" / "README.md").write_text("---\nlabel: law\n---\n")
    assert label(stack, "legal").text == "law"


def test_without_a_label_every_place_is_named(tmp_path: Path) -> None:
    legal = tmp_path / "legal"
    with pytest.raises(ConfigError) as caught:
        labels(versioned(tmp_path, label=None))
    assert (
        f"adapters.legal.label: missing, and neither manifest.json nor README.md in {legal}, {legal}/v1, "
        in str(caught.value)
    )


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("some/legal", True), ("some/legal@v1", True), ("pinned/med@v1", True), ("pinned/med@v2", False),
        ("pinned/med", False), ("some/legal@../../x", False), ("some/legal@/etc", False),
    ],
)  # fmt: skip
def test_a_root_allows_its_revisions_or_its_own_alone(tmp_path: Path, path: str, allowed: bool) -> None:
    stack = write_stack(tmp_path, engine={"roots": ["some/legal", "pinned/med@v1"]})
    with nullcontext() if allowed else pytest.raises(ConfigError):
        stack.allowed(path)


# --- who gets which ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({"v1": 1}, {"v1": 100}),
        ({"v1": 90, "v2": 10}, {"v1": 90, "v2": 10}),
        ({"v1": 0.5, "v2": 0.25, "v3": 0.25}, {"v1": 50, "v2": 25, "v3": 25}),
        ({"v1": 1e-300, "v2": 1e-300}, {"v1": 50, "v2": 50}),
    ],
)
def test_conversations_fall_in_the_weights_shares(weights: dict[str, float], shares: dict[str, float]) -> None:
    counts = Counter(pick(weights, each) for each in CONVERSATIONS)
    assert {version: counts[version] / 100 for version in shares} == pytest.approx(shares, abs=1.5)


def test_a_conversation_has_one_version_in_every_process() -> None:
    known = {"conversation 0": "v2", "conversation 7": "v2", "\ud800": "v1"}
    assert {each: pick({"v1": 50, "v2": 50}, each) for each in known} == known


def test_ten_points_of_weight_move_a_tenth_of_the_conversations() -> None:
    before = [pick({"v1": 90, "v2": 10}, each) for each in CONVERSATIONS]
    after = [pick({"v1": 80, "v2": 20}, each) for each in CONVERSATIONS]
    moved = Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
    assert list(moved) == [("v1", "v2")]
    assert moved.total() / 100 == pytest.approx(10, abs=1.5)

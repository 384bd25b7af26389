"""Adapters into adapters.yaml and out of it: their own entry changes, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.configuration import set_hypothesis_home_dir

from adapters import Adapter, ConfigError, check_writable, drop_adapter, load, save_adapter
from adapters.save import rewrite
from tests.written_stacks import Written, adapters, files, names

ROOT = Path(__file__).parent.parent
set_hypothesis_home_dir(ROOT / ".run" / "hypothesis")

BASE = "# a stack\nbase: {model: a/b,   name: base}\n"
TWO = f"""{BASE}adapters:     # at least one
  # path   a hub id or a folder

  # the lawyer
  legal:      # l
    path:  a/legal   # rank 8
    # label: contracts
                     # and more

  # the doctor
  medical:
    path: a/medical
    label: >-  # read by the classifier
      health,
      drugs
    sampling:
      # low
      temperature: 0.2   # t
      stop:              # s
        - a
        - b
    # label: older
# the end
"""
NEW = "  new:\n    path: ./new\n    label: law, courts\n"


def adapter(path: str = "./new", **keys: Any) -> Adapter:
    return Adapter(path=path, **keys)


def stack(folder: Path, text: str) -> Path:
    file = folder / "adapters.yaml"
    file.write_bytes(text.encode())
    return file


def saved(file: Path, name: str, new: Adapter) -> str:
    """The text after it, and what was meant is what is read."""
    save_adapter(file, name, new)
    assert load(file).adapters[name] == new
    return file.read_bytes().decode()


def dropped(file: Path, name: str) -> str:
    drop_adapter(file, name)
    assert name not in load(file).adapters
    return file.read_bytes().decode()


# --- adding -----------------------------------------------------------------------------------------------------


BLOCK = "adapters:\n    a:\n       path: b\n"
FLOW = "{path: ./new, label: 'law, courts'}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TWO.removeprefix(BASE), TWO.removeprefix(BASE).replace("# the end\n", f"{NEW}# the end\n")),
        (
            f"{BLOCK}\nui:\n  # port: 1\n",
            f"{BLOCK}    new:\n       path: ./new\n       label: law, courts\n\nui:\n  # port: 1\n",
        ),
        ("adapters:\n  a: {path: b}", f"adapters:\n  a: {{path: b}}\n{NEW}"),
        ("adapters:\r\n  a:\r\n    path: b", f"adapters:\n  a:\n    path: b\n{NEW}".replace("\n", "\r\n")),
        ("adapters:\n  a: &a {path: b}\n  b: *a\n", f"adapters:\n  a: &a {{path: b}}\n  b: *a\n{NEW}"),
        ("adapters:\n  a:\n    path: b\n...\n", f"adapters:\n  a:\n    path: b\n{NEW}...\n"),
        ("adapters: {'a': {path: b}} # c", f"adapters: {{new: {FLOW}, 'a': {{path: b}}}} # c"),
        (
            "adapters: &all # c {\n  {\n    a: {path: b}, # c\n  }\n",
            f"adapters: &all # c {{\n  {{new: {FLOW},\n    a: {{path: b}}, # c\n  }}\n",
        ),
    ],
)
def test_a_new_adapter_is_a_block_at_the_end_or_in_the_braces(tmp_path: Path, before: str, after: str) -> None:
    assert saved(stack(tmp_path, BASE + before), "new", adapter(label="law, courts")) == BASE + after


def test_only_what_is_set_is_written_and_always_on_one_line(tmp_path: Path) -> None:
    new = adapter(
        path="x/y",
        tags={"audience": ["patient", "yes"], "1": "no"},
        system_prompt='Be\nbrief: "it\'s" # so',
        sampling={"temperature": 0, "stop": ["\n", "a, b"], "logit_bias": {"50": -1}, "seed": None},
        allow_pickle=True,
    )
    text = saved(stack(tmp_path, TWO), "7", new)
    assert text == TWO.replace(
        "# the end\n",
        "  '7':\n"
        "    path: x/y\n"
        "    tags: {audience: [patient, 'yes'], '1': ['no']}\n"
        '    system_prompt: "Be\\nbrief: \\"it\'s\\" # so"\n'
        "    sampling: {logit_bias: {'50': -1.0}, stop: [\"\\n\", 'a, b'], temperature: 0.0}\n"
        "    allow_pickle: true\n"
        "# the end\n",
    )


def test_a_mode_and_a_link_are_kept(tmp_path: Path) -> None:
    file = stack(tmp_path, TWO)
    file.chmod(0o640)
    (folder := tmp_path / "other").mkdir()
    (link := folder / "link.yaml").symlink_to(file)
    save_adapter(link, "new", adapter(label="law, courts"))
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert "new" in load(file).adapters
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adapters.yaml", "other"]


# --- changing ---------------------------------------------------------------------------------------------------


def medical(**keys: Any) -> Adapter:
    sampling = {"temperature": 0.2, "stop": ["a", "b"]}
    return Adapter(**{"path": "a/medical", "label": "health, drugs", "sampling": sampling, **keys})


@pytest.mark.parametrize(
    ("new", "was", "now"),
    [
        (medical(path="./m"), "path: a/medical", "path: ./m"),
        (
            medical(label="mind: body"),
            ">-  # read by the classifier\n      health,\n      drugs\n",
            "'mind: body'  # read by the classifier\n",
        ),
        (medical(label=None), "    label: >-  # read by the classifier\n      health,\n      drugs\n", ""),
        (medical(sampling={"temperature": 1, "stop": ["a", "b"]}), "temperature: 0.2 ", "temperature: 1.0 "),
        (
            medical(sampling={"temperature": 0.2, "stop": ["c"]}),
            "stop:              # s\n        - a\n        - b\n",
            "stop: [c]              # s\n",
        ),
        (medical(sampling={"stop": ["a", "b"]}), "      # low\n      temperature: 0.2   # t\n", ""),
        (
            medical(sampling={"temperature": 0.2, "stop": ["a", "b"], "top_k": 3}),
            "        - b\n",
            "        - b\n      top_k: 3\n",
        ),
        (medical(allow_pickle=True), "        - b\n", "        - b\n    allow_pickle: true\n"),
        (medical(), "", ""),
    ],
)
def test_only_the_keys_that_differ_change(tmp_path: Path, new: Adapter, was: str, now: str) -> None:
    file = stack(tmp_path, TWO)
    before = file.stat().st_mtime_ns, file.stat().st_ino
    assert saved(file, "medical", new) == TWO.replace(was, now)
    if new == medical():
        assert (file.stat().st_mtime_ns, file.stat().st_ino) == before


@pytest.mark.parametrize(
    ("entry", "after"),
    [
        ("{path: b, label: law}", "{path: ./new, label: 'a, b'}"),
        ("{path: b}", "{label: 'a, b', path: ./new}"),
        ("!!map {path: b, allow_pickle: true}", "!!map {label: 'a, b', path: ./new}"),
        ("{allow_pickle: true, path: b}", "{label: 'a, b', path: ./new}"),
        ('{"path":b,label: null}', "{\"path\":./new,label: 'a, b'}"),
        ("&one\n    path:\n      b\n    label: # l", "&one\n    path:\n      ./new\n    label: a, b # l"),
        ("{\n    path: b, # p\n    allow_pickle: true # a\n  }", "{label: 'a, b',\n    path: ./new, # p\n  }"),
    ],
)
def test_an_entry_stays_in_its_own_style(tmp_path: Path, entry: str, after: str) -> None:
    file = stack(tmp_path, f"{BASE}adapters:\n  a: {entry}\n")
    assert saved(file, "a", adapter(label="a, b")) == f"{BASE}adapters:\n  a: {after}\n"


# --- removing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("legal", "  # the lawyer\n", "# and more\n"), ("medical", "  # the doctor\n", "# label: older\n")],
)
def test_an_entry_goes_with_its_own_comments(tmp_path: Path, name: str, first: str, last: str) -> None:
    start, end = TWO.index(first), TWO.index(last) + len(last)
    assert dropped(stack(tmp_path, TWO), name) == TWO[:start] + TWO[end:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{a: {path: b}, new: {path: c}} # c", "{new: {path: c}} # c"),
        ("{new: {path: c}, a: {path: b}}", "{new: {path: c}}"),
        ("{new: {path: c}, a: {path: b}, }", "{new: {path: c}, }"),
        ("{a: {path: b}, # a\n  new: {path: c}}", "{ # a\n  new: {path: c}}"),
        (
            "{\n  # of a\n  a: {path: b}, # a\n  # of new\n  new: {path: c}\n}",
            "{\n  # of new\n  new: {path: c}\n}",
        ),
        ("{\n  new: {path: c}, # n\n  a: {path: b}\n}", "{\n  new: {path: c}, # n\n}"),
        ("{ new: {path: c}\n, a: {path: b}\n}", "{ new: {path: c}\n}"),
        ("\n  ? a\n  : path: b\n  new: {path: c}", "\n  new: {path: c}"),
        ("\n\n  a:\n    path: b\n\n\n  new: {path: c}", "\n\n\n\n  new: {path: c}"),
    ],
)
def test_entries_in_braces_go_with_their_comma(tmp_path: Path, before: str, after: str) -> None:
    assert dropped(stack(tmp_path, f"{BASE}adapters: {before}"), "a") == f"{BASE}adapters: {after}"


# --- refusing ---------------------------------------------------------------------------------------------------

KEYS = f"router: {{keys: {{team: {{sha256: '{'a' * 64}', adapters: [legal]}}}}}}\n"
LIBRARY = "lag: {mix: {libraries: {x: [legal, medical]}}}\n"


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (TWO, "lega", r'adapters: no adapter "lega"; there are legal, medical'),
        (f"{BASE}adapters:\n  a: {{path: b}}\n", "a", r"adapters\.a: the last one, and a stack needs one; add"),
        (TWO + LIBRARY, "legal", r'lag\.mix\.libraries\.x: names "legal"; take it out there first'),
        (TWO + "lag: {library: all}\n", "legal", r"lag\.lag\.library: a library of 1; it takes two"),
        (TWO + KEYS, "legal", r'router\.keys\.team\.adapters: names "legal"; take it out there first'),
        (
            f"{BASE}adapters:\n  a: &a {{path: b}}\n  b: *a\n",
            "a",
            r"be edited safely; take out by hand: adapters\.a",
        ),
    ],
)
def test_what_cannot_be_removed_is_said_in_one_line(tmp_path: Path, text: str, name: str, says: str) -> None:
    file = stack(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}: .*{says}[^\n]*$"):
        drop_adapter(file, name)
    assert file.read_bytes().decode() == text


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("adapters:\n  a: &a {path: b}\n  b: *a\n", "a", "hand: adapters.a: {path: ./new, label: 'a, b'}"),
        ("adapters:\n  a: &a {path: b}\n  b: *a\n", "b", "hand: adapters.b: {path: ./new, label: 'a, b'}"),
        ("adapters:\n  a:\n    path: b\n    label: |+\n      a\n\n\n", "b", "hand: adapters.b: {path: ./new"),
        ("adapters:\n  a: {path: b}\n", "auto", 'the name "auto" is reserved'),
        ("adapters:\n  a: {path: b}\n", "base", 'both named "base"'),
        ("adapters:\n  a: {path: b}\n", "a b", "adapters.a b: String should match pattern"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path, text: str, name: str, says: str) -> None:
    file = stack(tmp_path, BASE + text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}: [^\n]*{re.escape(says)}[^\n]*$"):
        save_adapter(file, name, adapter(label="a, b"))
    assert file.read_bytes().decode() == BASE + text


def test_a_file_that_somebody_else_changes_meanwhile_is_theirs(tmp_path: Path) -> None:
    file = stack(tmp_path, TWO)

    def edit(text: str) -> str:
        file.write_text("theirs", encoding="utf-8")
        return text

    with pytest.raises(ConfigError, match="somebody else has changed it just now; nothing was written, try again"):
        rewrite(file, edit, load(file), "")
    assert [each.read_text(encoding="utf-8") for each in tmp_path.iterdir()] == ["theirs"]


def test_a_file_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be written, and --save needs it"):
        check_writable(tmp_path / "none.yaml", "--save needs it")


@pytest.mark.parametrize("name", ["adapters.yaml", "demo/adapters.yaml"])
def test_an_adapter_comes_and_goes_in_the_stacks_of_this_project(tmp_path: Path, name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    file = stack(tmp_path, text)
    assert saved(file, "new", adapter(label="law, courts")) == text + NEW
    assert dropped(file, "new") == text


# --- whatever the file looks like -------------------------------------------------------------------------------


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(before=files(), name=names, new=adapters)
def test_all_other_lines_stay(
    tmp_path_factory: pytest.TempPathFactory, before: Written, name: str, new: Adapter
) -> None:
    def lines() -> list[str]:
        return file.read_bytes().decode().removesuffix(before.newline).split(before.newline)

    file = stack(tmp_path_factory.getbasetemp(), before.text())
    there, (above, own, below) = load(file).adapters, before.split(name)

    save_adapter(file, name, new)
    after, now = lines(), load(file).adapters
    assert now == {**there, name: new}
    assert after[: len(above)] == above
    assert after[len(after) - len(below) :] == below
    if there.get(name) == new:
        assert after == above + own + below

    if len(now) > 1:
        drop_adapter(file, name)
        assert name not in load(file).adapters
        assert lines() == (above + below if name in there else above + own + below)

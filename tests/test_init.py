"""`python -m serve init`: a folder of adapters becomes a stack that loads and passes its check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters import load
from serve import init
from serve.preflight import preflight
from tests.adapter_files import BASE, write_adapter

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base and adapters: one with a manifest, one with a card, two without words, and one that is broken."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(BASE))
    made = tmp_path / "made"
    write_adapter(made / "law")
    (made / "law" / "manifest.json").write_text(json.dumps({"label": "law: rights, and courts"}))
    write_adapter(made / "law" / "checkpoint-10")
    write_adapter(made / "Medizin & Pflege", {"r": 8, "use_rslora": True})
    (made / "Medizin & Pflege" / "README.md").write_text("---\ntags: [lora, medicine]\n---\n")
    write_adapter(made / "deep" / "on")
    write_adapter(made / "123")
    write_adapter(made / "broken", {"use_dora": True})
    (made / "notes").mkdir()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = init.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_written_stack_loads_and_passes_its_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "stacks" / "own.yaml"
    output.parent.mkdir()
    code, out, _ = run(capsys, folder / "made", "--base", folder / "base", "--output", output)
    assert code == 0
    assert f"{output}: broken is left out: " in out
    assert "DoRA is not served" in out
    stack = load(output)
    assert stack.base.model == "../base"
    assert stack.base.name == "base"
    assert {name: adapter.path for name, adapter in stack.adapters.items()} == {
        "123": "../made/123",
        "Medizin-Pflege": "../made/Medizin & Pflege",
        "deep-on": "../made/deep/on",
        "law": "../made/law",
    }
    assert stack.adapters["deep-on"].label == "deep on"
    checked = preflight(stack)
    assert checked.broken == ()
    text = " ".join(output.read_text().split())
    for line in (
        "# label: 'law: rights, and courts' # from manifest.json",
        "# label: medicine # from README.md, tags",
        "label: deep on # nothing in its files says what it is about",
        "path: ../made/deep/on # rank 8",
        "# path: ../made/broken",
        "# max-lora-rank: 8 # holds every adapter",
        "# max_loras: 5 # 4 adapters, and one for an update",
        "chat_template: ",
    ):
        assert line in text
    assert re.search(r"# broken: # not served: \S+adapter_config.json: use_dora: True: DoRA is not served", text)
    assert "checkpoint" not in text
    assert stack.chat_template() == ROOT / "templates" / "instruct.jinja"


def test_what_is_commented_out_is_what_the_engine_gets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "own.yaml"
    run(capsys, folder / "made", "--base", folder / "base", "--output", output)
    derived = preflight(load(output)).command
    assert derived is not None
    spelled = output.read_text().replace("  # max_loras", "  max_loras").replace("    # max-", "    max-")
    assert re.search(r"# dtype: bfloat16 +# the base is saved in a type it does not name", spelled)
    (folder / "set.yaml").write_text(spelled.replace("    # dtype", "    dtype"))
    decided = preflight(load(folder / "set.yaml")).command
    assert decided is not None
    assert decided.room == derived.room
    assert decided.estimate is not None
    assert derived.estimate is not None
    assert decided.estimate.dtype == derived.estimate.dtype
    assert decided.estimate.length == derived.estimate.length


def test_a_file_that_exists_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "own.yaml"
    output.write_text("mine")
    code, out, err = run(capsys, folder / "made", "--base", folder / "base", "--output", output)
    assert (code, out) == (2, "")
    assert err == f"{output}: exists already; give another name with --output, or move it away\n"
    assert output.read_text() == "mine"


def test_the_base_is_what_the_adapters_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "own.yaml"
    assert run(capsys, folder / "made", "--output", output)[0] == 0
    assert load(output).base.model == "some/base"
    output.unlink()
    write_adapter(folder / "made" / "law", {"base_model_name_or_path": "other/base"})
    code, _, err = run(capsys, folder / "made", "--output", output)
    assert code == 2
    assert err.count("\n") == 1
    assert "the adapters name several bases: some/base (123), other/base (law); give one with --base" in err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["notes"], "no adapter below it (a folder with adapter_config.json)"),
        (["nowhere"], "no adapter below it"),
        (["broken", "--base", "some/base"], "not written: no adapter in"),
        (["law", "--base", "no such folder"], "--base no such folder: neither a folder nor a hub id (owner/name)"),
    ],
)
def test_where_nothing_can_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    output = folder / "own.yaml"
    code, _, err = run(capsys, folder / "made" / arguments[0], *arguments[1:], "--output", output)
    assert code == 2
    assert says in err.splitlines()[-1]
    assert not output.exists()


def test_the_command(folder: Path) -> None:
    command = [sys.executable, "-m", "serve", "init", str(folder / "made"), "--output", str(folder / "a.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"next: python -m serve check --config {folder / 'a.yaml'}" in done.stdout

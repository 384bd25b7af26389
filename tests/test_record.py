"""What a result was made with: no folder of this machine, the truth about commit and hardware; one plot."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from record.drawing import canvas
from record.origin import Gpu, changed, checked_out, commit, machine, origin


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--peers", "/some/where/peers", "--quick"], "--peers peers --quick"),
        (["--out=/some/where/out"], "--out=out"),
        (["--set", "data.source=~/mine/rows.jsonl"], "--set data.source=rows.jsonl"),
        (
            ["--data", "../rows.jsonl", "--set", "data.where={a: b}"],
            "--data ../rows.jsonl --set 'data.where={a: b}'",
        ),
        (["--live=http://127.0.0.1:8000/v1"], "--live=http://127.0.0.1:8000/v1"),
    ],
)
def test_a_command_names_no_folder_of_this_machine(words: list[str], shown: str) -> None:
    assert origin("some.module", words, ()).command == f"python -m some.module {shown}"


def test_an_origin_is_a_document() -> None:
    made = origin("some", [], ["pytest", "no-such-package"])
    assert made.versions["python"].startswith("3.")
    assert made.versions["pytest"] == pytest.__version__
    assert made.versions["no-such-package"] == "not installed"
    assert made.machine.cpu
    assert made.machine.cores >= 1
    assert made.machine.memory_gb > 0
    assert json.loads(json.dumps(asdict(made)))["machine"]["cores"] == made.machine.cores


def test_gpus_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\n[ "$3" = -i ] && [ "$4" != 1 ] && exit 6\n'
        '[ -z "$3" ] && echo "NVIDIA A, the first, 15360, 580.1"\necho "NVIDIA B, 81559, 580.1"\n',
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine().gpus == (Gpu("NVIDIA A, the first", 16.1, "580.1"), Gpu("NVIDIA B", 85.5, "580.1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert machine().gpus == (Gpu("NVIDIA B", 85.5, "580.1"),)
    for value in ("", "7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert machine().gpus == ()


def test_a_checkout_is_named_by_its_commit_and_whether_that_is_all(tmp_path: Path) -> None:
    module = new_checkout(tmp_path / "some")
    name = commit(module)[:12]
    assert len(name) == 12
    assert not changed(module)
    assert checked_out(module) == checked_out(tmp_path / "some") == name
    (tmp_path / "some" / "new").touch()
    assert changed(module)
    assert checked_out(module) == f"{name}+changes"
    (module / "copied").mkdir()
    assert commit(module / "copied") == checked_out(tmp_path) == "unknown"


def new_checkout(folder: Path) -> Path:
    """A repository with one commit; the folder of the package in it."""
    package = folder / "vllm_router"
    package.mkdir(parents=True)
    for name in ("__init__.py", "app.py"):
        (package / name).touch()
    nobody = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", f"core.hooksPath={folder}/none")
    for arguments in (("init", "-q"), ("add", "."), (*nobody, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return package


def test_a_plot_is_a_file_when_its_block_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "some.png"
    with canvas(file, 2, 1) as figure:
        figure.subplots().plot([0, 1], [1, 0], label="costs $5 and $6")
        assert not file.exists()
    assert file.read_bytes().startswith(b"\x89PNG")

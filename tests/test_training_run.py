"""`python -m training` as a person runs it, on a base that trains in seconds."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from adapters import label, load
from demo import corpus
from demo.base import VOCABULARY
from tests.tiny_base import ROOT, TEMPLATE, tiny_base, tiny_tokenizer
from training.__main__ import main
from training.guard import checkpoints
from training.result import RUN

pytestmark = pytest.mark.usefixtures("one_thread")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
WRITTEN = {"README.md", "adapter_config.json", "adapter_model.safetensors", "loss.png", "manifest.json", RUN}
TRAINING = {
    "epochs": 6, "batch_size": 4, "accumulate": 1, "learning_rate": 2e-2, "max_length": 64, "save_steps": 5,
    "quantization": None, "dtype": "float32", "checkpointing": False, "cpu": True,
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Workshop:
    """A stack with a tiny base, and a recipe for it."""

    folder: Path
    which: str = ""

    @property
    def stack(self) -> Path:
        return self.folder / "adapters.yaml"

    @property
    def recipe(self) -> str:
        return self.which or str(self.folder / "law")

    def command(self, *more: str) -> list[str]:
        out = str(self.folder / "trained")
        return [sys.executable, "-m", "training", self.recipe, "--out", out, *more]

    def run(self, *more: str) -> Done:
        """In this process, by the same `main`: a start of Python and torch takes ten seconds."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([self.recipe, "--out", str(self.folder / "trained"), *more])
        return Done(code, out.getvalue(), err.getvalue())

    def made(self, name: str = "law") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "trained" / name / RUN).read_text(encoding="utf-8"))
        return found


def workshop(folder: Path) -> Workshop:
    tiny_base(folder / "base")
    (folder / "law").mkdir()
    stack = {
        "base": {"model": "base", "name": "tiny", "chat_template": str(TEMPLATE)},
        "adapters": {"other": {"path": "other", "label": "something else"}},
    }
    recipe = {
        "domain": "law", "stack": "../adapters.yaml", "data": {"source": "rows.jsonl", "held_out": 0.25},
        "training": TRAINING, "tags": {"audience": "layman"}, "sampling": {"temperature": 0.2},
    }  # fmt: skip
    lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.1}
    rows = [{"question": pair.question, "answer": pair.answer} for pair in corpus.load()["legal"][:40]]
    (folder / "adapters.yaml").write_text(yaml.safe_dump(stack), encoding="utf-8")
    (folder / "law" / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "law" / "adapter_config.json").write_text(json.dumps({**lora, "target_modules": "auto"}))
    lines = [json.dumps(row) for row in (*rows, rows[0], {"question": "", "answer": "So."})]
    (folder / "law" / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Workshop(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The adapter, made in one go."""
    shop = workshop(tmp_path_factory.mktemp("shop"))
    done = shop.run("--register", str(shop.stack))
    assert done.returncode == 0, done.stderr
    assert "42 rows of rows.jsonl" in done.stdout
    assert "left out: 1 duplicated (first: line 41), 1 empty (first: line 42)" in done.stdout
    assert "the adapter is better" in done.stdout
    # rate, time left and both losses
    assert re.search(
        r"law: 100%.* 48/48 \[\d\d:\d\d<\d\d:\d\d, .*(step/s|s/step), loss=\d.*, held_out=\d", done.stderr
    )
    return shop


def test_a_run_writes_an_adapter_and_all_that_describes_it(trained: Workshop) -> None:
    folder = trained.folder / "trained" / "law"
    assert {file.name for file in folder.iterdir()} == WRITTEN
    run = trained.made()
    assert len(run["losses"]) == run["steps"]
    assert run["losses"][-1] < run["losses"][0] - 1
    assert [step for step, _ in run["held_out_losses"]] == [*range(5, 48, 5), run["steps"]]
    assert run["comparison"]["better"]
    modes = {file.stat().st_mode for file in folder.iterdir() if file.suffix in (".safetensors", ".json")}
    assert len(modes) == 1, "whoever reads one reads all"
    assert (run["counts"]["duplicates"], run["counts"]["empty"]) == (1, 1)
    assert str(trained.folder) not in json.dumps(run)
    assert run["made_with"]["versions"]["peft"] != "not installed"
    assert not checkpoints(trained.folder / "trained" / ".work" / "law")
    assert list((trained.folder / "trained" / ".work" / "law" / "logs").glob("events*"))
    model = AutoModelForCausalLM.from_pretrained(trained.folder / "base")
    assert PeftModel.from_pretrained(model, folder).peft_config["default"].r == 8


def test_it_is_in_the_stack_with_its_label_tags_and_sampling(trained: Workshop) -> None:
    stack = load(trained.stack)
    adapter = stack.adapters["law"]
    assert stack.adapter_ref("law").folder == trained.folder / "trained" / "law"
    assert adapter.tags == {"audience": ("layman",)}
    assert adapter.defaults == {"temperature": 0.2}
    said = label(stack, "law")
    assert said.source == "manifest.json"
    assert {"law court", "law contract"} & set(said.text.split(", "))


def test_what_is_trained_already_is_not_trained_again(trained: Workshop) -> None:
    before = (trained.folder / "trained" / "law" / "adapter_model.safetensors").stat().st_mtime_ns
    done = trained.run("--merge")
    assert done.returncode == 0, done.stderr
    assert "done already" in done.stdout
    assert (trained.folder / "trained" / "law" / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert (trained.folder / "trained" / "law-merged" / "model.safetensors").is_file()
    other = trained.run("--set", "training.seed=5")
    assert other.returncode == 2
    assert other.stderr.endswith(
        "trained otherwise (training.seed); give another --name or --out, or --overwrite\n"
    )


def test_a_label_is_changed_without_a_training(trained: Workshop) -> None:
    before = trained.made()
    done = trained.run("--set", "label=courts and contracts")
    assert done.returncode == 0, done.stderr
    assert label(load(trained.stack), "law").text == "courts and contracts"
    assert "courts and contracts" in (trained.folder / "trained" / "law" / "README.md").read_text(encoding="utf-8")
    assert trained.run().returncode == 0
    assert trained.made() == before


def test_another_base_of_the_same_name_is_not_the_same(trained: Workshop) -> None:
    file = trained.folder / "base" / "model.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        refused = trained.run()
    finally:
        file.write_bytes(whole)
    assert refused.returncode == 2
    assert "trained otherwise (the base's weights)" in refused.stderr


def test_killed_in_the_middle_and_resumed_it_is_the_same_to_the_bit(trained: Workshop, tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    work = shop.folder / "trained" / ".work" / "law"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(shop.command(), cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not any(checkpoint.name == "checkpoint-10" for checkpoint in checkpoints(work)):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (shop.folder / "trained" / "law").exists()

    refused = shop.run()
    assert refused.returncode == 2
    assert "--resume goes on from there, --overwrite starts anew" in refused.stderr
    changed = shop.run("--resume", "--set", "training.learning_rate=0.001")
    assert changed.returncode == 2
    assert "with other training.learning_rate" in changed.stderr

    assert "--resume goes on from there" in shop.run("--check").stderr
    resumed = shop.run("--resume", "--set", "training.batch_size=2", "--set", "training.accumulate=2", "--check")
    assert resumed.returncode == 0, "the same steps, with less memory"
    resumed = shop.run("--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"goes on from {work / 'checkpoint-'}" in resumed.stdout
    for key in ("losses", "held_out_losses", "comparison"):
        assert shop.made()[key] == trained.made()[key], key
    weights = [
        (one.folder / "trained" / "law" / "adapter_model.safetensors").read_bytes() for one in (shop, trained)
    ]
    assert weights[0] == weights[1]


def test_an_adapter_that_is_no_better_goes_nowhere_unless_it_is_forced(trained: Workshop) -> None:
    """A learning rate of nearly nothing leaves the base as it is."""
    before = trained.stack.read_text(encoding="utf-8")
    options = ("--name", "idle", "--set", "training.learning_rate=1e-12", "--register", str(trained.stack))
    refused = trained.run(*options, "--set", "training.epochs=1")
    assert refused.returncode == 1
    assert "the adapter is not better" in refused.stdout
    assert refused.stderr.endswith("so it goes nowhere; --force sends it anyway\n")
    assert trained.stack.read_text(encoding="utf-8") == before
    forced = trained.run(*options, "--set", "training.epochs=1", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "done already" in forced.stdout
    assert "idle" in load(trained.stack).adapters


def test_an_adapter_is_kept_until_its_successor_is_whole(trained: Workshop) -> None:
    """The successor's learning rate is one that no weights survive."""
    file = trained.folder / "trained" / "law" / "adapter_model.safetensors"
    before = file.read_bytes()
    failed = trained.run("--overwrite", "--set", "training.learning_rate=1e38")
    assert failed.returncode == 1
    assert "the training diverged; there is no checkpoint yet" in failed.stderr
    assert file.read_bytes() == before
    assert trained.run("--overwrite", "--set", "training.epochs=1").returncode == 0
    assert file.read_bytes() != before
    assert trained.made()["steps"] == 8


def test_two_trainings_of_a_name_are_not_under_way_at_once(trained: Workshop) -> None:
    with (trained.folder / "trained" / ".work" / "twice.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = trained.run("--name", "twice")
    assert refused.returncode == 2
    assert "twice: another training of this name is under way" in refused.stderr


def test_a_folder_that_no_training_wrote_is_not_replaced(trained: Workshop) -> None:
    mine = trained.folder / "trained" / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused = trained.run("--name", "mine", "--overwrite")
    assert refused.returncode == 2
    assert "mine: exists, and no training wrote it" in refused.stderr
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_data_and_a_name_of_their_own_are_a_domain_of_their_own(trained: Workshop) -> None:
    """Neither the recipe's domain nor what it says of the columns of its data holds."""
    file = trained.folder / "cakes.csv"
    file.write_text(
        "prompt,response\n" + "\n".join(f"How long is cake {n} baked?,For {n} minutes." for n in range(40))
    )
    done = trained.run("--data", str(file), "--name", "baking", "--check", "--set", "data.held_out=0.2")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("label")]
    assert {"baking", "baking cake", "baking baked"} <= set(line.removeprefix("label").strip().split(", "))
    assert "nothing was trained: it would go to" in done.stdout


def test_another_adapters_place_is_taken_only_by_force(trained: Workshop) -> None:
    options = ("--name", "other", "--register", str(trained.stack), "--check")
    refused = trained.run(*options)
    assert refused.returncode == 2
    assert "adapters.other: is another adapter, other; --force puts this one in its place" in refused.stderr
    assert trained.run(*options, "--force").returncode == 0


# Faults, each before a model is loaded.


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A base whose weights cannot be read: whoever gets so far is late."""
    made = workshop(tmp_path_factory.mktemp("faults"))
    (made.folder / "base" / "model.safetensors").write_bytes(b"nonsense")
    yield made
    assert not (made.folder / "trained").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--set", "data.columns={question: frage, answer: answer}"], "it has question, answer"),
        (["--set", "data.held_out=0.0001"], "held"),
        (["--set", "lora.r=600"], "above vLLM's limit, 512"),
        (["--set", "lora.use_dora=true"], "DoRA"),
        (["--set", "lora.target_modules=[q_prj]"], "q_prj"),
        (["--set", "training.epoch=1"], 'training.epoch: unknown key; did you mean "epochs"?'),
        (["--set", "language=xx"], "language: xx: no table of everyday words"),
        (["--stack", "no-such.yaml"], "no-such.yaml"),
        (["--register", "no-such.yaml"], "no-such.yaml: no such file"),
        (["--live", "no-such-folder"], "--live no-such-folder: "),
        (["--live", "http://127.0.0.1:9"], "LORA_SELECT_ADMIN_KEY"),
        (["--gguf"], "--gguf: GGUF is not available"),
        (["--name", "auto"], 'the name "auto" is reserved'),
        (["--name", "tiny"], 'both named "tiny"'),
        (["--set", "training.max_length=1000000"], "training.max_length: 1000000, and the base has"),
        (["--data", "x" * 300], "x" * 300),
        (["--set", "data=5", "--data", "rows.jsonl"], "data"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_loaded(
    shop: Workshop, options: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLAMA_CPP", "LORA_SELECT_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(shop.folder)
    done = shop.run(*options)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_offline_a_base_that_is_not_in_the_cache_is_said_in_one_line(shop: Workshop) -> None:
    """That of the production stack; in a process of its own, as huggingface_hub reads its environment once."""
    command = shop.command("--stack", "adapters.yaml")
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mistralai/Mistral-7B-v0.1: no config.json in this machine's cache of the hub" in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_says_what_would_be_trained_and_trains_nothing(shop: Workshop) -> None:
    done = shop.run("--check")
    assert done.returncode == 0, done.stderr
    assert "rank 8, alpha 16 on k_proj, o_proj, q_proj, v_proj" in done.stdout
    assert "trainable of" in done.stdout
    assert "steps of 4 rows, learning rate 0.02" in done.stdout


def test_dialogpt_is_trained_and_merged_though_vllm_serves_no_lora_on_it(tmp_path: Path) -> None:
    """The recipe as it is, on a tiny GPT-2."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes)).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    rows = [{"question": pair.question, "answer": pair.answer} for pair in corpus.load()["medical"][:30]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shop = Workshop(tmp_path, "dialogpt-medical")
    base = f"base={{model: {tmp_path / 'base'}, chat_template: {ROOT / 'templates' / 'dialogpt.jinja'}}}"
    changes = (base, "training.steps=2", "training.max_length=64", "training.cpu=true", "training.dtype=float32")
    told = [word for change in changes for word in ("--set", change)]
    done = shop.run("--data", str(tmp_path / "rows.jsonl"), *told, "--merge")
    assert done.returncode == 0, done.stderr
    assert "vLLM serves no LoRA adapters on gpt2" in done.stdout
    assert (tmp_path / "trained" / "dialogpt-medical-merged" / "model.safetensors").is_file()

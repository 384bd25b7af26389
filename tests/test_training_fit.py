"""A training that is cut off, that diverges, or that runs out of room: nothing is lost, and one line says why."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from demo import corpus
from tests.tiny_base import tiny_base, tiny_tokenizer
from training.data.example import Example
from training.data.tokens import prepare
from training.errors import Stopped
from training.guard import checkpoints, last_good, lower
from training.settings import Settings
from training.sft import Fit, Rows, Work, fit, save_adapter, steps_of

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings(
    steps=8, learning_rate=1e-2, batch_size=4, max_length=64, seed=3, dtype="float32", cpu=True, save_steps=2
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows() -> Rows:
    examples = [Example.ask(pair.question, pair.answer) for pair in corpus.load()["legal"][:12]]
    return prepare(examples, tiny_tokenizer(), 64).rows


@pytest.fixture(scope="module")
def whole(base: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, Path]:
    """Trained to its end at once."""
    folder = tmp_path_factory.mktemp("whole")
    return trained(base, rows, folder), folder


def trained(base: Path, rows: Rows, folder: Path, resume: Path | None = None, **changes: Any) -> Fit:
    settings = SETTINGS.model_copy(update=changes)
    # With dropout, so that the random state matters.
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    work = Work(folder, rows[:3], resume)
    return fit(model, tiny_tokenizer(), rows[3:], settings, "legal", lora, work)


def weights(model: Any, out: Path) -> bytes:
    save_adapter(model, "some/base", out)
    return (out / "adapter_model.safetensors").read_bytes()


def test_every_step_is_recorded_and_the_newest_checkpoints_are_kept(whole: tuple[Fit, Path]) -> None:
    done, folder = whole
    assert len(done.losses) == done.steps == 8
    assert [step for step, _ in done.held_out] == [2, 4, 6, 8]
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-6", "checkpoint-8"]
    logged = EventAccumulator(str(folder / "logs")).Reload().Scalars("train/loss")
    assert [point.step for point in logged] == list(range(1, 9))
    assert [point.value for point in logged] == pytest.approx(done.losses)


def test_a_checkpoint_that_was_cut_off_is_no_checkpoint(tmp_path: Path) -> None:
    for name, state in (
        ("checkpoint-10", "{}"),
        ("checkpoint-9", '{"a": 1}'),
        ("checkpoint-20", '{"a": '),
        ("x", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-30").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9"]
    assert last_good(tmp_path) == f"the last good checkpoint is {tmp_path / 'checkpoint-9'}"
    assert last_good(tmp_path / "none") == "there is no checkpoint yet"


def test_a_training_that_diverges_stops_with_its_last_good_checkpoint(
    base: Path, rows: Rows, tmp_path: Path
) -> None:
    """The first step warms up, the next has a learning rate that no weights survive."""
    folder = tmp_path / "work"
    with pytest.raises(Stopped, match=r"step 2: the loss .*is (nan|inf): the training diverged") as caught:
        trained(base, rows, folder, learning_rate=1e38, warmup=0.5, save_steps=1)
    assert f"the last good checkpoint is {folder / 'checkpoint-1'}; a lower training.learning_rate" in str(
        caught.value
    )
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_full_disk_stops_it_with_its_last_good_checkpoint(base: Path, rows: Rows, tmp_path: Path) -> None:
    """The kernel refuses to make a file larger than a limit, which is the nearest to a full disk without root."""
    folder = tmp_path / "work"
    trained(base, rows, folder, steps=2)
    with files_below(12_000), pytest.raises(Stopped, match="no room left to write in") as caught:
        trained(base, rows, folder, folder / "checkpoint-2")
    assert f"the last good checkpoint is {folder / 'checkpoint-2'}" in str(caught.value)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert trained(base, rows, folder, checkpoints(folder)[-1]).steps == 8


@contextmanager
def files_below(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_too_little_memory_names_the_setting_to_lower(base: Path, tmp_path: Path) -> None:
    """In a process of its own, which may have 150 MB more than it takes with everything loaded."""
    script = f"""
import resource
from tests.test_training_fit import SETTINGS, Path, trained
from training.errors import Stopped
row = {{"input_ids": [5] * 64, "labels": [5] * 64}}
trained(Path({str(base)!r}), [row] * 8, Path({str(tmp_path)!r}) / "small", steps=1)
used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000, -1))
try:
    trained(Path({str(base)!r}), [row] * 515, Path({str(tmp_path)!r}) / "large", batch_size=512)
except Stopped as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    said = done.stdout.strip().splitlines()
    assert said, done.stderr
    assert said[-1].startswith(
        "out of memory: set training.batch_size to 256 (is 512), and training.accumulate to 2"
    )
    assert said[-1].endswith("there is no checkpoint yet")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"batch_size": 4, "accumulate": 2}, "training.batch_size to 2 (is 4), and training.accumulate to 4"),
        ({"batch_size": 3}, "training.batch_size to 1 (is 3), and training.accumulate to 3"),
        ({"batch_size": 7, "accumulate": 2}, "training.batch_size to 2 (is 7), and training.accumulate to 7"),
        ({"batch_size": 1}, "training.checkpointing to true"),
        ({"batch_size": 1, "checkpointing": True}, "training.quantization to nf4"),
        (
            {"batch_size": 1, "checkpointing": True, "quantization": "nf4", "max_length": 512},
            "training.max_length below 512",
        ),
    ],
)
def test_what_to_lower_the_cheapest_first(settings: dict[str, Any], advice: str) -> None:
    assert advice in lower(Settings(**settings))


@pytest.mark.parametrize(
    ("settings", "rows", "steps"),
    [({"steps": 7}, 100, 7), ({"epochs": 3, "batch_size": 4}, 9, 9), ({"epochs": 0.5, "batch_size": 4}, 16, 2)],
)
def test_how_many_steps_it_takes(settings: dict[str, Any], rows: int, steps: int) -> None:
    assert steps_of(Settings(**settings), rows) == steps

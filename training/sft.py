"""`fit(...) -> Fit`: supervised fine-tuning of token rows with trl and peft, checkpointed and resumable."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from peft import LoraConfig
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback
from transformers.integrations import TensorBoardCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from serve.lint.files import CONFIG, WEIGHTS
from training.guard import Guard, explained, lower, spent
from training.model import precision, uses_gpu
from training.progress import Progress
from training.settings import Settings

Rows = list[dict[str, list[int]]]
CHECKPOINTS = 10
"""How many there are in a training at most, where the recipe does not say when."""

MEASURED = 64
"""Held-out rows that are enough for a curve."""


@dataclass(frozen=True)
class Work:
    """Where a long training keeps its checkpoints and logs, what it is measured on, and where it goes on from."""

    folder: Path
    held_out: Rows
    resume: Path | None = None


@dataclass(frozen=True)
class Fit:
    """A trained model, the loss of each step (nats per answer token), and the held-out loss at some."""

    model: Any
    steps: int
    losses: list[float]
    held_out: list[tuple[int, float]]
    seconds: float


def fit(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    settings: Settings,
    label: str,
    lora: LoraConfig | None = None,
    work: Work | None = None,
) -> Fit:
    """Train a model on tokenised rows; without `lora`, all of its weights. Without `work`, nothing is saved.

    Raises Stopped when it cannot go on: not a number, no memory, no room on the disk.
    """
    with _folder(work) as folder:
        guard, progress = Guard(folder, spent(work.resume) if work and work.resume else 0.0), Progress(label)
        trainer = SFTTrainer(
            model=model,
            args=_arguments(settings, len(rows), folder, work),
            # Given by us, because the trainer would otherwise change the model's pad token.
            data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id or 0),
            train_dataset=datasets.Dataset.from_list(rows),
            eval_dataset=datasets.Dataset.from_list(work.held_out[:MEASURED]) if work else None,
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[guard, progress, *_logs(work)],
        )
        trainer.remove_callback(PrinterCallback)
        _full_precision(trainer.model)
        with explained(lower(settings), folder), progress:
            trainer.train(resume_from_checkpoint=str(work.resume) if work and work.resume else None)
    history = trainer.state.log_history
    return Fit(
        # Without the Trainer's wrapper, which makes float32 of all logits, whatever is done with them.
        model=trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False),
        steps=trainer.state.global_step,
        losses=[entry["loss"] for entry in history if "loss" in entry],
        held_out=[(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry],
        seconds=guard.seconds,
    )


def steps_of(settings: Settings, rows: int) -> int:
    """How many times the weights change; the last batch of an epoch may be a smaller one."""
    batches = -(-rows // settings.batch_size)
    return settings.steps or max(1, math.ceil(settings.epochs * -(-batches // settings.accumulate)))


def save_adapter(model: Any, base_name: str, out: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, which call their base `base_name`."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name
    # The default, "auto", asks the hub about the base's name.
    model.save_pretrained(out, save_embedding_layers=False)
    # PEFT's model card is an empty form that names this machine's path to the base.
    (out / "README.md").unlink(missing_ok=True)
    # safetensors lets nobody else read its file, such as the user who serves.
    (out / WEIGHTS).chmod((out / CONFIG).stat().st_mode)


def _arguments(settings: Settings, rows: int, folder: Path, work: Work | None) -> SFTConfig:
    steps = steps_of(settings, rows)
    # Measured first, then saved: weights that have diverged since the step's own loss become no checkpoint.
    every = settings.save_steps or -(-steps // CHECKPOINTS)
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=settings.steps or -1,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        gradient_checkpointing=settings.checkpointing,
        lr_scheduler_type=settings.schedule,
        warmup_steps=int(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        use_cpu=settings.cpu,
        **precision(settings),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=uses_gpu(settings),
        # Every step: a curve that is resumed then has the same points as one that was not.
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if work else "no",
        eval_steps=every,
        save_strategy="steps" if work else "no",
        save_steps=every,
        save_total_limit=settings.keep,
        report_to="none",
        disable_tqdm=True,
    )
    # Of several GPUs the first: the Trainer would copy the model to all, which neither trl nor 4 bit takes.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _full_precision(model: Any) -> None:
    """trl puts a quantised base's adapter into bfloat16: small steps round away, and fp16's scaler refuses it."""
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()


def _logs(work: Work | None) -> list[TensorBoardCallback]:
    # By default every session gets a folder of its own, and a resumed curve falls apart.
    return [TensorBoardCallback(SummaryWriter(str(work.folder / "logs")))] if work else []


@contextmanager
def _folder(work: Work | None) -> Iterator[Path]:
    if work:
        yield work.folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)

"""`train_adapter(...) -> Run`: one LoRA adapter by supervised fine-tuning (trl, peft), with its run record."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from training.data.example import Example
from training.data.tokens import digest, prepare
from training.progress import Progress

PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers")


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults suit a 7B base. `warmup` is a share of all steps."""

    epochs: float = 3
    learning_rate: float = 2e-4
    batch_size: int = 8
    accumulate: int = 1
    max_length: int = 1024
    warmup: float = 0.05
    weight_decay: float = 0.0
    seed: int = 0
    dtype: str = "auto"
    cpu: bool = False


@dataclass(frozen=True)
class Run:
    """What was trained, on what, and how it went; written beside the adapter as run.json."""

    name: str
    base: str
    examples: int
    overlong: int
    data_digest: str
    settings: Settings
    lora: dict[str, Any]
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    packages: dict[str, str]


@dataclass(frozen=True)
class Fit:
    """A trained model with the losses that were logged on the way."""

    model: Any
    steps: int
    losses: list[float]


def train_adapter(
    base: str | Path,
    rows: Sequence[Example],
    lora: LoraConfig,
    settings: Settings,
    out: Path,
    base_name: str | None = None,
    chat_template: str | None = None,
) -> Run:
    """Train on `rows` and write the adapter and its run.json into `out`, whose last part names it.

    `base_name` is what the adapter's config calls its base when the base has only a local path.
    `chat_template` is the stack's own, for a base whose tokenizer has none (Mistral-7B-v0.1) or another.
    Raises ValueError when vLLM could not serve the result.
    """
    refuse_unservable(lora)
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(base)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    prepared = prepare(rows, tokenizer, settings.max_length)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=settings.dtype)
    done = fit(model, tokenizer, prepared.rows, settings, out.name, lora)
    name = base_name or str(base)
    _save(done.model, name, out)
    run = Run(
        name=out.name,
        base=name,
        examples=len(prepared.rows),
        overlong=prepared.overlong,
        data_digest=digest(rows),
        settings=settings,
        lora={"r": lora.r, "alpha": lora.lora_alpha, "targets": _targets(lora)},
        steps=done.steps,
        first_loss=done.losses[0],
        last_loss=done.losses[-1],
        seconds=round(time.monotonic() - started, 1),
        packages={package: version(package) for package in PACKAGES},
    )
    (out / "run.json").write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")
    return run


def fit(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, list[int]]],
    settings: Settings,
    label: str,
    lora: LoraConfig | None = None,
) -> Fit:
    """Train a model on tokenised rows; without `lora`, all of its weights. Saves nothing."""
    steps = int(settings.epochs * len(rows) / (settings.batch_size * settings.accumulate))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            args=_arguments(settings, steps, scratch),
            # Given by us, because the trainer would otherwise change the model's pad token.
            data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id or 0),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[Progress(label)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Fit(model=trainer.model, steps=trainer.state.global_step, losses=losses)


def _targets(lora: LoraConfig) -> list[str]:
    targets = lora.target_modules or ()
    return [targets] if isinstance(targets, str) else sorted(targets)


def refuse_unservable(lora: LoraConfig) -> None:
    """Raise ValueError for the LoRA variants that vLLM does not load, before any time is spent on one."""
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", None)):
        value = getattr(lora, key)
        if value != plain:
            raise ValueError(f"vLLM serves plain LoRA only: {key} must be {plain!r} (got {value!r})")


def _arguments(settings: Settings, steps: int, scratch: str) -> SFTConfig:
    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        gradient_checkpointing=False,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        use_cpu=settings.cpu,
        bf16=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=torch.cuda.is_available() and not settings.cpu,
        logging_steps=max(1, steps // 20),
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _save(model: Any, base_name: str, out: Path) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name
    # The default, "auto", asks the hub about the base's name.
    model.save_pretrained(out, save_embedding_layers=False)
    # PEFT's model card is an empty form that names this machine's path to the base.
    (out / "README.md").unlink(missing_ok=True)

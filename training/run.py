"""`train(plan, ...) -> Made`: weights, and everything that is written beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from adapters import ConfigError
from record.origin import Origin, origin
from serve.lint.files import WEIGHTS
from serve.lint.peft import largest_rank
from training.card import PLOT, write_card
from training.compare import Comparison, Losses, compare
from training.guard import checkpoints, explained
from training.manifest import HeldOut, Manifest, file_digest, write_manifest
from training.model import load_model
from training.plan import Plan, check_room, differences
from training.plots import draw_loss
from training.result import RUN, Run
from training.sft import MEASURED, Fit, Work, fit, save_adapter
from training.words import draft_label

PLANNED = "plan.json"
"""What decides the weights of the checkpoints beside it."""

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """Where an adapter goes, and where its training keeps checkpoints and logs until then."""

    adapter: Path
    work: Path

    @classmethod
    def of(cls, out: Path, name: str) -> Places:
        """Below `out`; an adapter's own folder holds nothing but what serves it."""
        return cls(out / name, out / "work" / name)

    @property
    def merged(self) -> Path:
        """Base and adapter as one model."""
        return self.adapter.with_name(f"{self.adapter.name}-merged")

    @property
    def gguf(self) -> Path:
        """The adapter for llama.cpp."""
        return self.adapter.with_name(f"{self.adapter.name}.gguf")


@dataclass(frozen=True)
class Made:
    """An adapter on disk, and whether it beats its base on held-out rows: yes or no, and in words."""

    folder: Path
    better: bool
    said: str


def finished(plan: Plan, places: Places) -> bool:
    """Whether this very adapter is there. Raises ConfigError where another one is in its place."""
    record = places.adapter / RUN
    if not record.is_file():
        if places.adapter.exists():
            raise ConfigError(f"{places.adapter}: exists, and no training wrote it; give another --name or --out")
        return False
    changed = differences(_read(record)["decides"], plan.decides)
    if changed:
        raise ConfigError(
            f"{places.adapter}: holds an adapter that was trained otherwise ({', '.join(changed)}); give another "
            "--name or --out, or --overwrite"
        )
    return True


def read_made(places: Places) -> Made:
    """What an earlier training has left."""
    record = _read(places.adapter / RUN)
    return Made(places.adapter, record["comparison"]["better"], record["said"])


def resumable(plan: Plan, places: Places, resume: bool) -> Path | None:
    """The checkpoint to go on from; None: from the start.

    Raises ConfigError where there is one and nobody said what to do with it, or where it is of another plan.
    """
    found = checkpoints(places.work)
    if not found:
        return None
    if not resume:
        raise ConfigError(
            f"{found[-1]}: of a training that did not end; --resume goes on from there, --overwrite starts anew"
        )
    changed = differences(_read(places.work / PLANNED), plan.decides)
    if changed:
        raise ConfigError(
            f"{found[-1]}: of a training with other {', '.join(changed)}; --overwrite starts anew with these"
        )
    return found[-1]


def clear(places: Places) -> None:
    """For a training that starts anew."""
    for folder in (places.adapter, places.work):
        shutil.rmtree(folder, ignore_errors=True)


def train(plan: Plan, places: Places, resume: Path | None, command: list[str], say: Say) -> Made:
    """Train, compare with the base, and write the adapter's folder in one step.

    Raises Stopped when it cannot go on; what there is by then is kept for --resume.
    """
    recipe = plan.recipe
    places.work.mkdir(parents=True, exist_ok=True)
    check_room(plan, places.work)
    (places.work / PLANNED).write_text(_json(plan.decides), encoding="utf-8")
    made_with = origin("training", command, PACKAGES)
    if resume:
        say(f"goes on from {resume}")
    # PEFT draws the adapter's first weights before the Trainer sets its seed.
    set_seed(recipe.training.seed)
    model = load_model(plan.base, recipe.training)
    work = Work(places.work, plan.compared, resume)
    done = fit(model, plan.tokenizer, plan.train.rows, recipe.training, recipe.name, plan.lora, work)
    with explained(recipe.training, places.work):
        comparison = compare(done.model, plan.compared, recipe.training.batch_size)
    scratch = places.work / "adapter"
    shutil.rmtree(scratch, ignore_errors=True)
    save_adapter(done.model, plan.base.name, scratch)
    _describe(plan, scratch, done, comparison, made_with)
    places.adapter.parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(places.adapter)
    for checkpoint in checkpoints(places.work):
        shutil.rmtree(checkpoint)
    return Made(places.adapter, comparison.better, comparison.line())


def _describe(plan: Plan, folder: Path, done: Fit, comparison: Comparison, made_with: Origin) -> None:
    """Everything but the weights."""
    recipe, base = plan.recipe, plan.base.name
    label = recipe.label or draft_label(recipe.domain, _texts(plan), recipe.language)
    compared = HeldOut(**comparison.record())
    run = Run(
        recipe=recipe,
        label=label,
        base=base,
        targets=plan.targets,
        parameters=plan.counted,
        counts=plan.dataset.counts,
        overlong=plan.train.overlong + plan.train.long_answers,
        data=plan.dataset.digest,
        steps=done.steps,
        seconds=round(done.seconds, 1),
        losses=tuple(done.losses),
        held_out_losses=tuple(done.held_out),
        comparison=compared,
        said=comparison.line(),
        decides=plan.decides,
        made_with=made_with,
    )
    run.write(folder)
    manifest = Manifest(
        label=label,
        domain=recipe.domain,
        tags=recipe.tags,
        system_prompt=recipe.system_prompt,
        sampling=recipe.sampling,
        base=base,
        rank=largest_rank(plan.lora.to_dict()),
        digest=file_digest(folder / WEIGHTS),
        dataset=plan.dataset.counts.source,
        held_out=compared,
    )
    write_manifest(folder, manifest)
    title = f"{recipe.name}: {base} on {plan.dataset.counts.source}"
    on_the_way = Losses(comparison.base.nats[:MEASURED], comparison.base.tokens[:MEASURED])
    draw_loss(folder / PLOT, title, list(enumerate(done.losses, 1)), done.held_out, on_the_way.mean)
    write_card(folder, run)


def _texts(plan: Plan) -> list[str]:
    """What people ask, and what they are told."""
    return [
        "\n".join([*(str(turn["content"]) for turn in example.messages if turn["role"] == "user"), example.answer])
        for example in plan.dataset.train
    ]


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}; --overwrite starts anew") from None


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"

"""`train(plan, ...) -> Made`: weights, and everything that is written beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import set_seed

from record.origin import Origin, origin
from serve.lint.files import WEIGHTS
from serve.lint.peft import largest_rank
from training.card import PLOT, write_card
from training.compare import Comparison, Losses, compare
from training.guard import explained
from training.manifest import HeldOut, Manifest, file_digest, write_manifest
from training.model import load_model
from training.places import PLANNED, Places, read
from training.plan import Plan, check_room
from training.plots import draw_loss
from training.result import RUN, Run
from training.sft import MEASURED, Fit, Work, fit, save_adapter
from training.words import draft_label

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """An adapter on disk, and whether it beats its base on held-out rows: yes or no, and in words."""

    folder: Path
    better: bool
    said: str


def read_made(places: Places) -> Made:
    """What an earlier training has left."""
    record = read(places.adapter / RUN)
    return Made(places.adapter, record["comparison"]["better"], record["said"])


def train(plan: Plan, places: Places, resume: Path | None, command: list[str], say: Say) -> Made:
    """Train, compare with the base, and put the adapter's folder in its place when all of it is written.

    Raises Stopped when it cannot go on; what there is by then is kept for --resume.
    """
    recipe, settings = plan.recipe, plan.recipe.training
    check_room(plan, places.work)
    planned = json.dumps(plan.decides, indent=1, ensure_ascii=False)
    (places.work / PLANNED).write_text(f"{planned}\n", encoding="utf-8")
    made_with = origin("training", command, PACKAGES)
    if resume:
        say(f"goes on from {resume}")
    with explained(settings, places.work):
        # PEFT draws the adapter's first weights before the Trainer sets its seed.
        set_seed(settings.seed)
        model = load_model(plan.base, settings)
        work = Work(places.work, plan.compared, resume)
        done = fit(model, plan.tokenizer, plan.train.rows, settings, recipe.name, plan.lora, work)
        comparison = compare(done.model, plan.compared, settings.batch_size)
        scratch = places.work / "adapter"
        shutil.rmtree(scratch, ignore_errors=True)
        save_adapter(done.model, plan.base.name, scratch)
        _describe(plan, scratch, done, comparison, made_with)
        places.publish(scratch)
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

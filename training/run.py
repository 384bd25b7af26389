"""`train(plan, ...) -> Made`: weights, and everything that is written beside them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import set_seed

from adapters import ConfigError
from record.origin import Origin, origin
from serve.lint.files import WEIGHTS
from serve.lint.peft import largest_rank
from training.card import PLOT, write_card
from training.compare import Comparison, Losses, compare
from training.guard import explained, lower
from training.manifest import HeldOut, Manifest, file_digest, write_manifest
from training.model import load_model
from training.places import PLANNED, Places
from training.plan import Plan, check_room
from training.plots import draw_loss
from training.result import Run
from training.sft import MEASURED, Fit, Work, fit, save_adapter

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """An adapter on disk, and what its training came to."""

    folder: Path
    run: Run


def made_before(plan: Plan, places: Places) -> Made:
    """What an earlier training of this plan has left, described anew: its label or its tags may be others now.

    Raises ConfigError where that cannot be written.
    """
    old = Run.read(places.adapter)
    # Of the settings some may differ, such as batch_size, and it was trained with its own.
    recipe = plan.recipe.model_copy(update={"training": old.recipe.training})
    run = dataclasses.replace(old, recipe=recipe, label=plan.label)
    try:
        describe(places.adapter, run)
    except OSError as error:
        raise ConfigError(f"{places.adapter}: cannot be written: {error.strerror}") from None
    return Made(places.adapter, run)


def train(plan: Plan, places: Places, resume: Path | None, command: list[str], say: Say) -> Made:
    """Train, compare with the base, and put the adapter's folder in its place when all of it is written.

    Raises Stopped when it cannot go on; what there is by then is kept for --resume.
    """
    recipe, settings = plan.recipe, plan.recipe.training
    places.begin(anew=resume is None)
    check_room(plan, places.work)
    planned = json.dumps(plan.decides, indent=1, ensure_ascii=False)
    (places.work / PLANNED).write_text(f"{planned}\n", encoding="utf-8")
    made_with = origin("training", command, PACKAGES)
    if resume:
        say(f"goes on from {resume}")
    # PEFT draws the adapter's first weights before the Trainer sets its seed.
    set_seed(settings.seed)
    with explained("a smaller base, or training.quantization: nf4, needs less", places.work):
        model = load_model(plan.base, settings)
    work = Work(places.work, plan.compared, resume)
    done = fit(model, plan.tokenizer, plan.train.rows, settings, recipe.name, plan.lora, work)
    with explained(lower(settings), places.work):
        comparison = compare(done.model, plan.compared, settings.batch_size)
        scratch = places.work / "adapter"
        shutil.rmtree(scratch, ignore_errors=True)
        save_adapter(done.model, plan.base.name, scratch)
        run = _run(plan, done, comparison, made_with)
        _draw(scratch, run, comparison)
        describe(scratch, run)
        places.publish(scratch)
    return Made(places.adapter, run)


def describe(folder: Path, run: Run) -> None:
    """run.json, manifest.json and README.md, beside the weights."""
    run.write(folder)
    recipe = run.recipe
    manifest = Manifest(
        label=run.label,
        domain=recipe.domain,
        tags=recipe.tags,
        system_prompt=recipe.system_prompt,
        sampling=recipe.sampling,
        base=run.base,
        rank=largest_rank(run.decides["lora"]),
        digest=file_digest(folder / WEIGHTS),
        dataset=run.counts.source,
        held_out=run.comparison,
    )
    write_manifest(folder, manifest)
    write_card(folder, run)


def _run(plan: Plan, done: Fit, comparison: Comparison, made_with: Origin) -> Run:
    return Run(
        recipe=plan.recipe,
        label=plan.label,
        base=plan.base.name,
        targets=plan.targets,
        parameters=plan.counted,
        counts=plan.dataset.counts,
        overlong=plan.train.overlong + plan.train.long_answers,
        data=plan.dataset.digest,
        steps=done.steps,
        seconds=round(done.seconds, 1),
        losses=tuple(done.losses),
        held_out_losses=tuple(done.held_out),
        comparison=HeldOut(**comparison.record()),
        said=comparison.line(),
        decides=plan.decides,
        made_with=made_with,
    )


def _draw(folder: Path, run: Run, comparison: Comparison) -> None:
    """The base's line is of the rows that the curve is of, and a mean of the same kind."""
    rows = Losses(comparison.base.nats[:MEASURED], comparison.base.tokens[:MEASURED])
    base = rows.mean_of_batches(run.recipe.training.batch_size)
    title = f"{run.recipe.name}: {run.base} on {run.counts.source}"
    draw_loss(folder / PLOT, title, list(enumerate(run.losses, 1)), run.held_out_losses, base)

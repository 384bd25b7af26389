"""What `python -m training` does, from the checks to an adapter that `auto` chooses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from adapters import load
from serve.lint.finding import errors
from training.errors import Stopped
from training.export import check_merge, merge
from training.guard import explained, last_good
from training.lint import check_adapter, check_name
from training.live import Live, find_live
from training.llamacpp import check_convertible, find_converter, gguf
from training.places import Places, finished, resumable
from training.plan import Plan, plan
from training.recipe import Recipe
from training.register import check_free, check_register, register
from training.remote import Remote
from training.routed import routed
from training.run import Made, made_before, train


@dataclass(frozen=True)
class Targets:
    """Where an adapter goes once it is trained; all of it is known to answer before that."""

    live: Live | None
    router: Remote | None


def run(recipe: Recipe, told: argparse.Namespace, argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is trained, and Stopped after."""
    places = Places.of(told.out, recipe.name)
    live = find_live(told.live) if told.live else None
    planned = plan(recipe)
    targets = _targets(planned, told, places, live)
    for line in planned.lines():
        _say(line)
    done = finished(planned, places, told.overwrite)
    if done:
        _say(f"training  done already: {places.adapter}")
    elif resumable(planned, places, told.resume, told.overwrite) is None and told.resume:
        _say(f"training  no checkpoint in {places.work}: it starts anew")
    if told.check:
        _say(f"check     all right; nothing was trained: it would go to {places.adapter}")
        return 0
    made = made_before(planned, places) if done else _train(planned, told, places, argv)
    _say(made.run.said)
    _check(planned, made)
    _export(planned, told, places)
    if (told.register or live) and not made.run.comparison.better and not told.force:
        raise Stopped(
            f"{made.folder}: no better than its base on held-out rows, so it goes nowhere; --force sends it anyway"
        )
    if told.register:
        _say(f"stack     {register(told.register, recipe.name, made.folder, recipe)}")
    if targets.live and targets.router:
        _go_live(targets.live, targets.router, planned, made)
    return 0


def _targets(planned: Plan, told: argparse.Namespace, places: Places, live: Live | None) -> Targets:
    """What comes after hours of training is looked at before them. Raises ConfigError."""
    recipe = planned.recipe
    check_name(planned.base, recipe.name)
    if told.register:
        check_register(told.register, recipe.name, planned.base, recipe)
        if not told.force:
            check_free(load(told.register), recipe.name, places.adapter)
    if live:
        live.check(recipe.name, planned.base, recipe, places.adapter)
        if not told.force:
            live.check_free(recipe.name, places.adapter)
    if told.merge:
        check_merge(planned.base.config, places.merged)
    if told.gguf:
        check_convertible(planned.lora.to_dict())
        find_converter()
    return Targets(live, live.router() if live else None)


def _train(planned: Plan, told: argparse.Namespace, places: Places, argv: Sequence[str]) -> Made:
    with places.locked():
        resume = resumable(planned, places, told.resume, told.overwrite)
        try:
            return train(planned, places, resume, list(argv), _say)
        except KeyboardInterrupt:
            _say(last_good(places.work))
            raise


def _check(planned: Plan, made: Made) -> None:
    """Raises Stopped for an adapter that vLLM would refuse."""
    findings = check_adapter(planned.base, planned.recipe.name, made.folder)
    for finding in findings:
        _say(f"check     {finding.text}")
    if errors(findings):
        raise Stopped(f"{made.folder}: trained, and vLLM would not serve it")
    _say(f"adapter   {made.folder}: checked as python -m serve check would")


def _export(planned: Plan, told: argparse.Namespace, places: Places) -> None:
    base = planned.base
    with explained("merging takes the whole base in 16 bit", places.work):
        if told.merge:
            merge(base.model, base.chat_template, places.adapter, places.merged, "auto", "cpu", base.revision)
            _say(f"merged    {places.merged}")
        if told.gguf:
            found = gguf(places.adapter, base.config, places.gguf)
            _say(
                f"gguf      {places.gguf}: {found.modules} modules of {found.architecture}, alpha {found.alpha:g}"
            )


def _go_live(live: Live, router: Remote, planned: Plan, made: Made) -> None:
    recipe = planned.recipe
    _say(f"live      {live.add(recipe.name, made.folder, recipe).line()}")
    questions = [example.messages for example in planned.dataset.held_out]
    found = routed(router, recipe.name, questions, recipe.tags)
    _say(f"live      {found.line()}")
    if found.asked and not found.own:
        _say("live      auto does not choose it: set the recipe's label, and run this again")
    for complaint in live.complaints():
        _say(f"live      {complaint}")


def _say(line: str) -> None:
    print(line, flush=True)

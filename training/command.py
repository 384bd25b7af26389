"""What `python -m training` does, from the checks to an adapter that `auto` chooses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from training.errors import Stopped
from training.export import check_merge, merge
from training.guard import last_good
from training.lint import check_adapter
from training.live import Live, find_live
from training.llamacpp import check_convertible, find_converter, gguf
from training.places import Places, finished, resumable
from training.plan import Plan, plan
from training.recipe import Recipe
from training.register import check_register, register
from training.routed import routed
from training.run import Made, read_made, train


def run(recipe: Recipe, told: argparse.Namespace, argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is trained, and Stopped after."""
    places = Places.of(told.out, recipe.name)
    live = find_live(told.live) if told.live else None
    planned = plan(recipe)
    _check_targets(planned, told, places, live)
    for line in planned.lines():
        _say(line)
    if told.check:
        return 0
    made = _made(planned, told, places, argv)
    _say(made.said)
    findings = check_adapter(planned.base, recipe.name, made.folder)
    for finding in findings:
        _say(f"check     {finding.text}")
    if any(finding.error for finding in findings):
        raise Stopped(f"{made.folder}: trained, and vLLM would not serve it")
    _say(f"adapter   {made.folder}: checked as python -m serve check would")
    _export(planned, told, places)
    if (told.register or live) and not made.better and not told.force:
        raise Stopped(
            f"{made.folder}: no better than its base on held-out rows, so it goes nowhere; --force sends it anyway"
        )
    if told.register:
        _say(f"stack     {register(told.register, recipe.name, made.folder, recipe)}")
    if live:
        _go_live(live, planned, made)
    return 0


def _check_targets(planned: Plan, told: argparse.Namespace, places: Places, live: Live | None) -> None:
    """What comes after hours of training is looked at before them. Raises ConfigError."""
    recipe = planned.recipe
    if told.register:
        check_register(told.register, recipe.name, planned.base, recipe)
    if live:
        live.check(recipe.name, planned.base, recipe, places.adapter)
    if told.merge:
        check_merge(planned.base.config, places.merged)
    if told.gguf:
        check_convertible(planned.lora.to_dict())
        find_converter()


def _made(planned: Plan, told: argparse.Namespace, places: Places, argv: Sequence[str]) -> Made:
    """Trained now, or before with the very same recipe, data and base."""
    if finished(planned, places, told.overwrite):
        _say(f"training  done already: {places.adapter}")
        return read_made(places)
    with places.locked():
        resume = resumable(planned, places, told.resume, told.overwrite)
        try:
            return train(planned, places, resume, list(argv), _say)
        except KeyboardInterrupt:
            _say(f"\n{last_good(places.work)}")
            raise


def _export(planned: Plan, told: argparse.Namespace, places: Places) -> None:
    base = planned.base
    if told.merge:
        merge(base.model, base.chat_template, places.adapter, places.merged, "auto", "cpu")
        _say(f"merged    {places.merged}")
    if told.gguf:
        _say(f"gguf      {places.gguf}: {gguf(places.adapter, base.model, places.gguf)}")


def _go_live(live: Live, planned: Plan, made: Made) -> None:
    recipe = planned.recipe
    _say(f"live      {live.add(recipe.name, made.folder, recipe).line()}")
    questions = [example.messages for example in planned.dataset.held_out]
    _say(f"live      {routed(live.router(), recipe.name, questions, recipe.tags).line()}")


def _say(line: str) -> None:
    print(line, flush=True)

"""The whole embedded stack: build what is missing, serve it, ask it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adapters import load
from demo.samples import ask_all
from serve.run import run
from serve.stack import plan

STACK = Path(__file__).with_name("adapters.yaml")
RUN_DIR = Path(".run")


def up(once: bool, say: Callable[[str], None]) -> int:
    """Serve demo/adapters.yaml and ask the samples; stay up until a signal unless `once`.

    Returns 0, or 1 when a sample went wrong. Raises ConfigError, or StartError when a process cannot start.
    """
    stack = load(STACK)
    planned = plan(stack, RUN_DIR)
    for note in planned.notes:
        say(note)

    def task() -> int:
        code = ask_all(stack, say)
        if not once:
            say("Ctrl-C ends all of it")
        return code

    return run(stack, planned, RUN_DIR, say, task, stop_after_task=once)

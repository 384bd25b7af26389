"""Before anything is timed: engines say the same where they must, and adapters something else than their base."""

from __future__ import annotations

from benchmarks.gpu.engines import LAG, LORA, MANY, PLAIN
from benchmarks.gpu.say import say
from benchmarks.gpu.stand import Stand
from benchmarks.processes import BenchmarkError
from benchmarks.throughput.load import Asked, Target
from benchmarks.throughput.watch import Said, ask

TOKENS = 4
SAME = True
PAIRS = (
    ("the base, with LoRA on and without", (PLAIN, ""), (LORA, ""), SAME),
    ("an adapter, in two engines", (LORA, "adapter"), (MANY, "adapter"), SAME),
    ("an adapter and its base", (LORA, "adapter"), (LORA, ""), not SAME),
    ("lag and the base", (LAG, LAG), (LAG, ""), not SAME),
)
"""Roles, and who is asked there: the base, the first adapter, or lag."""


def checks(stand: Stand) -> dict[str, bool | None]:
    """By pair: whether it is as it must be, None where one of the two did not answer."""
    text = stand.texts.text(stand.names[0], stand.plan.prompt)
    found: dict[str, bool | None] = {}
    for name, one, other, same in PAIRS:
        said = [_said(stand, role, who, text) for role, who in (one, other)]
        first, second = (one and (one.tokens[:1], one.candidates[:1]) for one in said)
        # Other kernels round otherwise, and probabilities with them: of the same, only the token.
        found[name] = None
        if first and second:
            found[name] = first[0] == second[0] if same else first != second
        say(f"{name}: {'no answer' if found[name] is None else 'as it must be' if found[name] else 'WRONG'}")
    return found


def _said(stand: Stand, role: str, who: str, text: str) -> Said | None:
    running = stand.roles[role]
    model = {"": stand.base, "adapter": stand.names[0]}.get(who, who)
    try:
        return ask(Target(role, running.url), Asked(text, model), TOKENS) if running.up else None
    except BenchmarkError as error:
        say(str(error))
        return None

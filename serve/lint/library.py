"""Libraries of adapters that LAG chooses from: who is in one, and what neither they nor the engine may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters import Stack, split
from serve.lint.files import CONFIG, WEIGHTS, here
from serve.lint.finding import Finding
from serve.lint.fit import pairs
from serve.lint.weights import WeightsError, header

SPECTRAL = "spectral"
EXPERTS, HEADS = "experts", ("embed_tokens", "lm_head")
MOST_LIBRARIES = 4
"""That vllm_plugin/ routes separately for one model."""


def members(stack: Stack) -> tuple[str, ...]:
    """Every adapter that is in a library, once; the spectral classifier has all of them in one."""
    names = tuple(dict.fromkeys(split(part)[0] for part in stack.adapters))
    if SPECTRAL in stack.router.classifier:
        return names
    found = (lag.members(names) for lag in stack.lag.values())
    return tuple(dict.fromkeys(member for libraries in found for each in libraries.values() for member in each))


def takes_all(stack: Stack) -> bool:
    """Whether what is added at run time is in a library at once."""
    named = [each for lag in stack.lag.values() for each in (lag.library, *lag.libraries.values())]
    return "all" in named or SPECTRAL in stack.router.classifier


def unrouted(folder: Path) -> str:
    """What of an adapter LAG would leave out: "experts", or a head's name; "" where it may be in a library.

    Files that cannot be read, pickles among them, are left to the engine.
    """
    try:
        found, _ = pairs(header(folder / WEIGHTS))
    except WeightsError:
        return ""
    for pair in found.values():
        if EXPERTS in pair.module.split("."):
            return EXPERTS
        if pair.short in HEADS:
            return pair.short
    return ""


def check(stack: Stack, base: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What a stack with LAG must not have; nothing for one without. `base` is the base's config.json."""
    if not (inside := members(stack)):
        return
    whose = "lag" if stack.lag else f"router.classifier: {SPECTRAL}"
    yield from _engine(stack, whose)
    if (base or {}).get("speculators_config"):
        yield Finding("base.model", f"{whose} works with no speculative decoding, which this base brings along")
    for name, lag in stack.lag.items():
        if len(lag.libraries) > MOST_LIBRARIES:
            yield Finding(f"lag.{name}.libraries", f"there are {len(lag.libraries)}; at most {MOST_LIBRARIES}")
    slots = stack.engine.library_slots
    if slots is not None and slots < len(inside):
        say = f"{slots} for {', '.join(inside)}: at least {len(inside)}, and one more to update them"
        yield Finding("engine.library_slots", say)
    yield from _members(stack)


def _engine(stack: Stack, whose: str) -> Iterator[Finding]:
    """Its arguments, however vLLM lets them be written: with dots for keys, or by their beginning."""
    for key, value in stack.engine_args.items():
        name = key.partition(".")[0]
        if value is None or value is False:
            continue
        if name == "fully-sharded-loras":
            yield Finding(f"engine.args.{key}", f"{whose} needs every rank's A whole; remove that key")
        if name.startswith("spec") and not name.startswith("specialize"):
            yield Finding(f"engine.args.{key}", f"{whose} works with no speculative decoding; remove that key")
        if name == "pipeline-parallel-size" and value != 1:
            yield Finding(f"engine.args.{key}", f"{whose} works with 1 only; take tensor-parallel-size")


def _members(stack: Stack) -> Iterator[Finding]:
    """A classifier that only scores loses nothing with an adapter's head, but has no score of experts."""
    names = dict.fromkeys(split(part)[0] for part in stack.adapters)
    for part in stack.adapters:
        folder = here(stack.adapter_ref(part), CONFIG)
        if folder is None or not (what := unrouted(folder)):
            continue
        for name, lag in stack.lag.items():
            if any(split(part)[0] in library for library in lag.members(names).values()):
                yield Finding(f"lag.{name}", f"{part} adapts {what}, which LAG does not route; leave it out")
        if SPECTRAL in stack.router.classifier and what == EXPERTS:
            yield Finding(
                "router.classifier", f"{SPECTRAL} has no score of {what}, which {part} adapts; take another"
            )

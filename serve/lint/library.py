"""Libraries of adapters that LAG chooses from: who is in one, and what neither they nor the engine may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters import DATA_FREE, Stack, split
from serve.lint.files import CONFIG, WEIGHTS, here
from serve.lint.finding import Finding
from serve.lint.fit import pairs
from serve.lint.weights import WeightsError, header

EXPERTS, HEADS = "experts", ("embed_tokens", "lm_head")
MOST_LIBRARIES = 4
"""That vllm_plugin/ routes separately for one model."""

ONE = {
    "pipeline-parallel-size": "take tensor-parallel-size",
    "data-parallel-size": "take tensor-parallel-size, or a stack for each engine",
    "api-server-count": "remove that key",
}
"""Arguments of vLLM that must be 1, and what to do instead."""


def members(stack: Stack) -> tuple[str, ...]:
    """Whatever is in a library, once: an adapter, of whose versions one is, or with the spectral classifier every
    version, all in one library."""
    if spectral(stack):
        return tuple(stack.parts)
    names = tuple(dict.fromkeys(split(part)[0] for part in stack.adapters))
    found = (lag.members(names) for lag in stack.lag.values())
    return tuple(dict.fromkeys(member for libraries in found for each in libraries.values() for member in each))


def takes_all(stack: Stack) -> bool:
    """Whether what is added at run time is in a library at once."""
    named = [each for lag in stack.lag.values() for each in (lag.library, *lag.libraries.values())]
    return "all" in named or spectral(stack)


def spectral(stack: Stack) -> bool:
    """Whether a classifier scores the library that all adapters are in."""
    return DATA_FREE in stack.router.classifier


def virtual(stack: Stack) -> int:
    """Models without weights of their own that vLLM counts in a batch: those of `lag`, and the one that scores."""
    return len(stack.lag) + spectral(stack)


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
    whose = "lag" if stack.lag else f"router.classifier: {DATA_FREE}"
    yield from _engine(stack, whose)
    if (base or {}).get("speculators_config"):
        yield Finding("base.model", f"{whose} works with no speculative decoding, which this base brings along")
    for name, lag in stack.lag.items():
        if len(lag.libraries) > MOST_LIBRARIES:
            yield Finding(f"lag.{name}.libraries", f"there are {len(lag.libraries)}; at most {MOST_LIBRARIES}")
    if len(inside) < 2:
        say = f"{DATA_FREE} chooses from two adapters or more, and there is {inside[0]}; add one, or take another"
        yield Finding("router.classifier", say)
    slots = stack.engine.library_slots
    if slots is not None and slots < len(inside):
        say = f"{slots} for {', '.join(inside)}: at least {len(inside)}, and one more to update them"
        yield Finding("engine.library_slots", say)
    yield from _members(stack)


def misplaced(stack: Stack, part: str, folder: Path) -> Iterator[Finding]:
    """What keeps an adapter, whose files are in `folder`, out of the libraries that it is in.

    A classifier that only scores loses nothing with an adapter's head, but has no score of experts.
    """
    if not (what := unrouted(folder)):
        return
    names = dict.fromkeys(split(one)[0] for one in stack.adapters)
    for name, lag in stack.lag.items():
        if any(split(part)[0] in library for library in lag.members(names).values()):
            yield Finding(f"lag.{name}", f"{part} adapts {what}, which LAG does not route; leave it out")
    if spectral(stack) and what == EXPERTS:
        yield Finding(
            "router.classifier", f"{DATA_FREE} has no score of {what}, which {part} adapts; take another"
        )


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
        if name in ONE and value != 1:
            yield Finding(f"engine.args.{key}", f"{whose} works with 1 only; {ONE[name]}")


def _members(stack: Stack) -> Iterator[Finding]:
    for part in stack.adapters:
        if folder := here(stack.adapter_ref(part), CONFIG):
            yield from misplaced(stack, part, folder)

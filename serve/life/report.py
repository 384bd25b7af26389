"""Adapters as JSON, and in lines: for people, and for routers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from adapters import Adapter, ConfigError, Lag, Stack, label, split
from serve.life.entry import Entry, State
from serve.life.libraries import Virtual

HELD = ("slot", "host", "pinned", "requests")


def words(stack: Stack) -> dict[str, str]:
    """Labels, derived where they are; an adapter that has none is not in it."""
    found = {}
    for name in stack.adapters:
        with suppress(ConfigError):
            found[name] = label(stack, name).text
    return found


def listed(
    entries: Sequence[Entry], words: Mapping[str, str], virtual: Sequence[Virtual], held: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Everything for people: state first; `words` are the labels, `held` is `Loader.held()`."""
    adapters = [_entry(one, words.get(split(one.name)[0]), held) for one in entries]
    return {"adapters": adapters, "lag": [_virtual(one, held) for one in virtual]}


def _entry(entry: Entry, words: str | None, held: Mapping[str, Any]) -> dict[str, Any]:
    """One adapter, or weighted version; its label is what routers go by, wherever that stands."""
    own = {"name": entry.name, "state": entry.state, "reason": _reason(entry), "version": entry.version}
    where = held.get(f"{entry.name}@{entry.version}", {})
    proof = None if entry.proof is None else vars(entry.proof)
    told = entry.adapter.model_dump(mode="json", exclude={"versions"})
    known = {
        "label": entry.adapter.label or words,
        "rank": entry.rank,
        "size_bytes": entry.size_bytes,
        "proof": proof,
    }
    return own | told | known | {key: where.get(key) for key in HELD}


def _reason(entry: Entry) -> str:
    """Of one that serves, what a later self-test has found; such an adapter was sound when it was loaded."""
    found = entry.proof.problem if entry.proof else ""
    return entry.reason or (found and f"its last self-test failed: {found}")


def _virtual(one: Virtual, held: Mapping[str, Any]) -> dict[str, Any]:
    """A model of LAG; `libraries` has its members, as NAME@VERSION."""
    told = {"name": one.name, "state": one.state, "reason": one.reason, "version": one.version}
    requests = held.get(f"{one.name}@{one.version}", {}).get("requests")
    return told | one.recipe.asked | {"rank": None, "slot": None, "requests": requests}


def routable(
    adapters: Mapping[str, Adapter], words: Mapping[str, str], entries: Sequence[Entry]
) -> dict[str, Any]:
    """For routers: the keys of every adapter that has a label, and what may have traffic, with versions.

    Adapters that are not up just now are there as well: what a classifier says of the others depends on their
    labels, and must not change with a restart of the engine.
    """
    told = {
        name: adapter.model_dump(mode="json", exclude_defaults=True) | {"label": words[name]}
        for name, adapter in adapters.items()
        if name in words
    }
    up = {entry.name: entry.version for entry in entries if entry.routable}
    awaited = [entry.name for entry in entries if entry.state in (State.CONFIGURED, State.LOADING)]
    return {"adapters": told, "up": up, "awaited": awaited}


def with_lag(told: dict[str, Any], lags: Mapping[str, Lag], virtual: Sequence[Virtual]) -> dict[str, Any]:
    """For routers, too: the sections of `lag`, and which of those models may have traffic."""
    up = {one.name: one.version for one in virtual if one.version}
    awaited = [one.name for one in virtual if one.state in (State.CONFIGURED, State.LOADING)]
    lag = {name: one.model_dump(mode="json") for name, one in lags.items()}
    return told | {"lag": lag, "up": told["up"] | up, "awaited": told["awaited"] + awaited}


def changed(name: str, before: Iterable[Entry], after: Iterable[Entry]) -> list[str]:
    """What an update did: a line, or none."""
    old, new = ({entry.name: entry for entry in entries} for entries in (before, after))
    if not any(entry.version for entry in old.values()):
        return [f"{name}: added"]
    if {key: entry.version for key, entry in old.items()} != {key: entry.version for key, entry in new.items()}:
        return [f"{name}: updated"]
    if [entry.adapter for entry in old.values()] != [entry.adapter for entry in new.values()]:
        return [f"{name}: described anew"]
    return []


def stays(adapters: Iterable[str], stack: Stack) -> list[str]:
    """What the file does not know, and does not end."""
    return [f"{name}: was added at run time, and stays" for name in adapters if name not in stack.adapters]


def restarts(before: Stack, after: Stack) -> list[str]:
    """Sections that only a new start reads."""
    names = [name for name in ("base", "engine", "router", "ui") if getattr(before, name) != getattr(after, name)]
    return [f"{name}: differs, and is read when the stack is started again" for name in names]

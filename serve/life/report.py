"""Adapters as JSON, and in lines: for people, and for routers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters import Adapter, Stack
from serve.life.entry import Entry, State

HELD = ("slot", "host", "pinned", "requests")


def listed(entry: Entry, held: Mapping[str, Any]) -> dict[str, Any]:
    """One adapter, or weighted version, for people: state first; `held` is `Loader.held()`."""
    own = {"name": entry.name, "state": entry.state, "reason": entry.reason, "version": entry.version}
    where = held.get(f"{entry.name}@{entry.version}", {})
    proof = None if entry.proof is None else vars(entry.proof)
    told = entry.adapter.model_dump(mode="json", exclude={"versions"})
    return own | told | {"rank": entry.rank, "proof": proof} | {key: where.get(key) for key in HELD}


def routable(
    adapters: Mapping[str, Adapter], words: Mapping[str, str], entries: Sequence[Entry]
) -> dict[str, Any]:
    """For routers: the keys of every adapter that has a label, and what of them may have traffic, with versions.

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


def restarts(before: Stack, after: Stack) -> list[str]:
    """Sections that only a new start reads."""
    names = [name for name in ("base", "engine", "router", "ui") if getattr(before, name) != getattr(after, name)]
    return [f"{name}: differs, and is read when the stack is started again" for name in names]

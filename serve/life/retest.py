"""The self-test once more, of an adapter that serves: because somebody asks for it."""

from __future__ import annotations

from dataclasses import replace

from adapters import Stack
from serve.life.loader import Loader, Refused
from serve.life.table import Table


def retest(table: Table, loader: Loader, stack: Stack, name: str) -> None:
    """Every version of it; what is found stands in its entry, and changes nothing else: removing is the asker's.

    Raises Refused where nothing of it serves, EngineError where the engine fails meanwhile.
    """
    serving = [entry for entry in table.of(name) if entry.routable]
    if not serving:
        raise Refused(f"{name} does not serve, so there is nothing to test")
    for entry in serving:
        proof = loader.test(stack, entry.name, entry.version, table.beside(entry.name))
        if table.get(entry.name) is entry:  # and no engine has died meanwhile
            table.set(replace(entry, proof=proof))

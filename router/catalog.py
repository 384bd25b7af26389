"""The model names that a client may use right now, as OpenAI's models endpoint shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from adapters import AUTO, Stack, split
from router.access import Client
from router.engine import Engine, Serving
from router.errors import Forbidden, NotFound
from router.roster import Lineup, Roster

Parts = Mapping[str, float]
"""The names under which the engine has an adapter, or each of its versions, with their weights."""


class Catalog:
    """`auto`, the base, and the adapters that are up and that the client's key is good for."""

    def __init__(self, stack: Stack, engine: Engine, roster: Roster) -> None:
        self._base, self._engine, self._roster = stack.base.name, engine, roster
        self._created = int(time.time())
        self._seen: tuple[Lineup, Serving] | None = None
        self._up: dict[str, Parts] = {}

    def adapters(self, client: Client) -> tuple[str, ...]:
        """The candidates of `auto`."""
        return client.may_use(self._now())

    def parts(self, adapter: str) -> Parts:
        """What of an adapter is up; empty for the base, and for what is not."""
        return self._now().get(adapter, {})

    def missing(self) -> tuple[str, ...]:
        """Adapters that should be up, and are not."""
        return tuple(name for name in self._roster.lineup.stack.adapters if name not in self._now())

    def names(self, client: Client) -> tuple[str, ...]:
        """All of them, `auto` first."""
        return (AUTO, self._base, *self.adapters(client))

    def all(self, client: Client) -> dict[str, Any]:
        """The list object."""
        return {"object": "list", "data": [self._model(name) for name in self.names(client)]}

    def one(self, name: str, client: Client) -> dict[str, Any]:
        """One model object. Raises NotFound or Forbidden."""
        return self._model(self.known(name, client))

    def known(self, name: str, client: Client) -> str:
        """The name itself, a version's (NAME@VERSION) included. Raises NotFound, which lists the names that exist,
        or Forbidden."""
        if name in (AUTO, self._base):
            return name
        adapter, version = split(name)
        parts = self.parts(adapter)
        if not parts or (version and name not in parts):
            message = f'the model "{name}" does not exist; there are {", ".join(self.names(client))}'
            raise NotFound(message, param="model", code="model_not_found")
        if not client.may_use((adapter,)):
            message = f'the key "{client.name}" is not good for "{name}", only for {", ".join(self.names(client))}'
            raise Forbidden(message, param="model")
        return name

    def _now(self) -> dict[str, Parts]:
        """Of the adapters that may be routed to, those that the engine lists."""
        seen = (self._roster.lineup, self._engine.serving)
        if self._seen is None or seen[0] is not self._seen[0] or seen[1] is not self._seen[1]:
            self._seen, self._up = seen, _up(*seen)
        return self._up

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "lora-select",
            "parent": None if name in (AUTO, self._base) else self._base,
        }


def _up(lineup: Lineup, serving: Serving) -> dict[str, Parts]:
    found = dict[str, Parts]()
    for name, adapter in lineup.stack.adapters.items():
        weights = {f"{name}@{version}": weight for version, weight in adapter.versions.items()} or {name: 1.0}
        parts = {part: weight for part, weight in weights.items() if part in lineup.up and part in serving.names}
        if parts:
            found[name] = parts
    return found

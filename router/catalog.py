"""The model names that a client may use right now, as OpenAI's models endpoint shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters import AUTO, Stack, split
from router.access import Client
from router.engine import Engine, Serving
from router.errors import Forbidden, NotFound
from router.roster import Lineup, Roster

Parts = Mapping[str, float]
"""The names under which the engine has an adapter, or each of its versions, with their weights."""


@dataclass(frozen=True)
class Up:
    """What of the adapters, and of the virtual models that `lag` makes of them, may be asked for."""

    adapters: Mapping[str, Parts] = field(default_factory=dict)
    virtual: Mapping[str, Parts] = field(default_factory=dict)


class Catalog:
    """`auto`, the base, and the adapters and virtual models that are up and that the client's key is good for."""

    def __init__(self, stack: Stack, engine: Engine, roster: Roster) -> None:
        self._base, self._engine, self._roster = stack.base.name, engine, roster
        self._created = int(time.time())
        self._seen: tuple[Lineup, Serving] | None = None
        self._up = Up()

    def adapters(self, client: Client) -> tuple[str, ...]:
        """The candidates of `auto`."""
        return client.may_use(self._now().adapters)

    def virtual(self, client: Client) -> tuple[str, ...]:
        """The models of `lag`, which are no candidates."""
        return client.may_use(self._now().virtual)

    def parts(self, name: str) -> Parts:
        """What of an adapter or a virtual model is up; empty for the base, and for what is not."""
        up = self._now()
        return up.adapters.get(name) or up.virtual.get(name, {})

    def missing(self) -> tuple[str, ...]:
        """Adapters and virtual models that should be up, and are not."""
        stack = self._roster.lineup.stack
        return tuple(name for name in (*stack.adapters, *stack.lag) if not self.parts(name))

    def names(self, client: Client) -> tuple[str, ...]:
        """All of them, `auto` first."""
        return (AUTO, self._base, *self.adapters(client), *self.virtual(client))

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

    def _now(self) -> Up:
        """Of what may be routed to, that which the engine lists."""
        seen = (self._roster.lineup, self._engine.serving)
        if self._seen is None or seen[0] is not self._seen[0] or seen[1] is not self._seen[1]:
            self._seen, self._up = seen, _up(*seen)
        return self._up

    def _kind(self, name: str) -> str:
        if name in (AUTO, self._base):
            return "auto" if name == AUTO else "base"
        return "virtual" if name in self._now().virtual else "adapter"

    def _tags(self, name: str) -> Mapping[str, tuple[str, ...]]:
        """What a request can ask for in order to have this one among the candidates."""
        adapter = self._roster.lineup.stack.adapters.get(name)
        return adapter.tags if adapter else {}

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "lora-select",
            "parent": None if name in (AUTO, self._base) else self._base,
            "lora_select": {"kind": self._kind(name), "tags": self._tags(name)},
        }


def _up(lineup: Lineup, serving: Serving) -> Up:
    found, stack = dict[str, Parts](), lineup.stack
    there = lineup.up.keys() & serving.names
    for name, adapter in stack.adapters.items():
        weights = {f"{name}@{version}": weight for version, weight in adapter.versions.items()} or {name: 1.0}
        if parts := {part: weight for part, weight in weights.items() if part in there}:
            found[name] = parts
    return Up(found, {name: {name: 1.0} for name in stack.lag if name in there})

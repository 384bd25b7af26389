"""The model names that a client may use right now, as OpenAI's models endpoint shows them."""

from __future__ import annotations

import time
from typing import Any

from adapters import AUTO, Stack
from router.access import Client
from router.engine import Engine
from router.errors import Forbidden, NotFound


class Catalog:
    """`auto`, the base, and the adapters that are up and that the client's key is good for."""

    def __init__(self, stack: Stack, engine: Engine) -> None:
        self._stack = stack
        self._engine = engine
        self._created = int(time.time())

    def adapters(self, client: Client) -> tuple[str, ...]:
        """The candidates of `auto`."""
        return client.may_use(self._engine.serving.adapters)

    def names(self, client: Client) -> tuple[str, ...]:
        """All of them, `auto` first."""
        return (AUTO, self._stack.base.name, *self.adapters(client))

    def all(self, client: Client) -> dict[str, Any]:
        """The list object."""
        return {"object": "list", "data": [self._model(name) for name in self.names(client)]}

    def one(self, name: str, client: Client) -> dict[str, Any]:
        """One model object. Raises NotFound or Forbidden."""
        return self._model(self.known(name, client))

    def known(self, name: str, client: Client) -> str:
        """The name itself. Raises NotFound, which lists the names that exist, or Forbidden."""
        if name in (AUTO, self._stack.base.name):
            return name
        if name not in self._engine.serving.adapters:
            message = f'the model "{name}" does not exist; there are {", ".join(self.names(client))}'
            raise NotFound(message, param="model", code="model_not_found")
        if not client.may_use((name,)):
            message = f'the key "{client.name}" is not good for "{name}", only for {", ".join(self.names(client))}'
            raise Forbidden(message, param="model")
        return name

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "lora-select",
            "parent": self._stack.base.name if name in self._stack.adapters else None,
        }

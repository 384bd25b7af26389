"""The model names that a client may use right now, as OpenAI's models endpoint shows them."""

from __future__ import annotations

import time
from typing import Any

from adapters import AUTO, Stack
from router.engine import Engine
from router.errors import NotFound


class Catalog:
    """`auto`, the base, and the adapters that are up. All raise EngineUnavailable while nothing can answer."""

    def __init__(self, stack: Stack, engine: Engine) -> None:
        self._stack = stack
        self._engine = engine
        self._created = int(time.time())

    def names(self) -> tuple[str, ...]:
        """All of them, `auto` first."""
        if self._engine.serving.problem:
            raise self._engine.unavailable()
        return (AUTO, self._stack.base.name, *self._engine.serving.adapters)

    def all(self) -> dict[str, Any]:
        """The list object."""
        return {"object": "list", "data": [self._model(name) for name in self.names()]}

    def one(self, name: str) -> dict[str, Any]:
        """One model object. Raises NotFound."""
        return self._model(self.known(name))

    def known(self, name: str) -> str:
        """The name itself. Raises NotFound, which lists the names that exist."""
        names = self.names()
        if name in names:
            return name
        message = f'the model "{name}" does not exist; there are {", ".join(names)}'
        raise NotFound(message, param="model", code="model_not_found")

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "lora-select",
            "parent": self._stack.base.name if name in self._stack.adapters else None,
        }

"""Adapters of an engine that somebody else started (`engine.url`): taken as they are, and tested over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters import Stack
from serve.life.answers import Untestable
from serve.life.api import EngineApi, EngineError
from serve.life.loader import Loaded, Recipe, Refused
from serve.life.prove import Proof, answers, prove

VERSION = "remote"
"""Of all of them: what the files are, their own machine knows."""


class RemoteEngine:
    """Loads and unloads nothing: HTTP from another machine does not allow it, and the files are not here."""

    keeps = False
    max_rank = None

    def __init__(self, stack: Stack) -> None:
        self._url = stack.engine_url
        self._api = EngineApi(self._url)

    def up(self, base: str) -> bool:
        """Whether it serves the base."""
        try:
            return base in self._api.served()
        except EngineError:
            return False  # the router says so, where people look

    def load(self, stack: Stack, name: str, known: str, beside: Sequence[str], proven: str) -> Loaded:  # noqa: ARG002
        """Test what the engine serves under that name. Raises Refused where it does not, or is wrong."""
        self._there(name, f"start it with --lora-modules {name}=…, then python -m serve reload")
        try:
            proof = self.test(stack, name, VERSION, beside)
        except Untestable as error:
            return Loaded(VERSION, note=f"not tested: {error}")
        if proof.problem:
            raise Refused(proof.problem)
        return Loaded(VERSION, proof=proof)

    def test(self, stack: Stack, name: str, version: str, beside: Sequence[str]) -> Proof:  # noqa: ARG002
        """Raises Untestable where the engine tells no log-probabilities."""
        return prove(self._api, stack.base.name, name, beside, exact=False)

    def compose(self, name: str, recipe: Recipe, known: str) -> str:  # noqa: ARG002
        """Whatever it is made of there."""
        self._there(name, "let it be made there, then python -m serve reload")
        answers(self._api, name)
        return VERSION

    def publish(self, name: str, version: str) -> None:
        """It has its name already."""

    def withdraw(self, name: str) -> None:
        """It keeps its name there; the router alone forgets it."""

    def unload(self, name: str, version: str) -> None:
        """It stays loaded there."""

    def held(self) -> dict[str, Any]:
        """Nothing is known of it."""
        return {}

    def sweep(self, used: set[str]) -> None:
        """No copies were made."""

    def _there(self, name: str, advice: str) -> None:
        if name not in self._api.served():
            missing = f"the engine at {self._url} does not list it, and loading there is its owner's (engine.url)"
            raise Refused(f"{missing}: {advice}")

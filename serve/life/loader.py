"""What the manager asks of an engine, whoever started it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from adapters import Stack
from serve.life.prove import Proof

DIGITS = 8
"""Of a SHA-256, in a version."""


class Refused(Exception):
    """Why an adapter cannot be loaded, in one line."""


class Unknown(Refused):
    """There is no adapter of that name."""


@dataclass(frozen=True)
class Loaded:
    """`version` is in the engine and may be published; `proof` is None where nothing was loaded anew, or where
    `note` says why nothing could be tested. `unrouted`: what of it LAG leaves out, so it joins no library.
    `size_bytes`: of its files, where they are here."""

    version: str
    rank: int | None = None
    proof: Proof | None = None
    note: str = ""
    unrouted: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A virtual adapter: one of each library's `k` likeliest for every token and projection, as NAME@VERSION."""

    k: int = 0
    score: str = ""
    libraries: tuple[tuple[str, ...], ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """Of all libraries."""
        return tuple(member for library in self.libraries for member in library)

    @property
    def version(self) -> str:
        """The first digits of its SHA-256: another one with every version of a member."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:DIGITS]

    @property
    def asked(self) -> dict[str, Any]:
        """As the engine wants it."""
        return {"k": self.k, "score": self.score, "libraries": [list(library) for library in self.libraries]}

    def __str__(self) -> str:
        libraries = " and of ".join(", ".join(library) for library in self.libraries)
        return f"{self.k} of {libraries}, by {self.score}"


class Loader(Protocol):
    """Methods raise EngineError. `keeps`: the version before goes on where an update was refused."""

    keeps: bool

    @property
    def max_rank(self) -> int | None:
        """Of an adapter; None: only the engine knows."""

    def up(self, base: str) -> bool:
        """Whether the engine can be used."""

    def load(self, stack: Stack, name: str, known: str, beside: Sequence[str], proven: str) -> Loaded:
        """Load and test an adapter of `stack`, of which the version `known` ("": none) answers already.

        `proven` ("": none) is a version whose copy is taken instead of the files as they are now. `beside` names
        adapters to share a batch with. Raises Refused, and leaves nothing loaded then.
        """

    def test(self, stack: Stack, name: str, version: str, beside: Sequence[str]) -> Proof:
        """Test the version that answers under `name` once more; `beside` names adapters to share a batch with."""

    def compose(self, name: str, recipe: Recipe, known: str) -> str:
        """Load and test a virtual adapter, of which the version `known` ("": none) answers already; its version.

        Raises Refused, and leaves nothing loaded then.
        """

    def publish(self, name: str, version: str) -> None:
        """From now on `name` is answered by that version."""

    def withdraw(self, name: str) -> None:
        """From now on the engine does not know `name`."""

    def unload(self, name: str, version: str) -> None:
        """Free slot, host memory and disk. Raises EngineError with status 409 while it answers somebody."""

    def held(self) -> dict[str, Any]:
        """Where each NAME@VERSION is: slot, host memory, pin, requests under way; {} where nobody says."""

    def sweep(self, used: set[str]) -> None:
        """Remove what is left on disk of others than these NAME@VERSION."""

"""A virtual adapter: a LoRARequest without weights, whose path says which adapters it chooses from, and how.

The path is the library's whole identity, and vLLM's prefix cache goes by name and path: another library shares no
block with this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

SCHEME = "lag:"
MOST_LIBRARIES = 4
"""In one virtual adapter; the GPU's graphs are captured for so many."""


class Member(NamedTuple):
    """An adapter of a library, as its own LoRARequest names it."""

    name: str
    id: int
    path: str


@dataclass(frozen=True)
class Spec:
    """`k` adapters of each library pass Arrow's filter, `score` decides among them; deltas of several libraries
    are summed. `observe`: it scores and adds nothing, for spectral routing of whole requests."""

    libraries: tuple[tuple[Member, ...], ...]
    k: int = 3
    score: Literal["norm", "projection"] = "norm"
    observe: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError, in one line."""
        if not 1 <= len(self.libraries) <= MOST_LIBRARIES:
            raise ValueError(f"{len(self.libraries)} libraries; 1 to {MOST_LIBRARIES} are possible")
        if self.score not in ("norm", "projection"):
            raise ValueError(f'score "{self.score}"; valid are norm and projection')
        for library in self.libraries:
            if len(library) < 2:
                raise ValueError(f"a library of {len(library)}: there is nothing to choose; it takes two adapters")
            if not 1 <= self.k <= len(library):
                raise ValueError(f"k is {self.k}, of a library of {len(library)}; valid is 1 to {len(library)}")
        if len({member.id for member in self.members}) < len(self.members):
            raise ValueError("an adapter is in a library twice; each may be there once")

    @property
    def members(self) -> tuple[Member, ...]:
        """Of all libraries."""
        return tuple(member for library in self.libraries for member in library)

    @property
    def path(self) -> str:
        """The `lora_path` of its LoRARequest."""
        told = {"k": self.k, "score": self.score, "libraries": self.libraries}
        return SCHEME + json.dumps(told | ({"observe": True} if self.observe else {}), separators=(",", ":"))


def virtual_path(
    libraries: Sequence[Iterable[tuple[str, int, str]]],
    k: int = 3,
    score: Literal["norm", "projection"] = "norm",
    observe: bool = False,
) -> str:
    """The `lora_path` for `LoRARequest(name, id, lora_path)` of a virtual adapter; members are (name, id, path).

    Raises ValueError for what cannot be: a library of one, k above its size, an adapter twice.
    """
    return Spec(tuple(tuple(Member(*one) for one in library) for library in libraries), k, score, observe).path


def parse(path: str) -> Spec | None:
    """What a `lora_path` says, None for a real adapter's. Raises ValueError, in one line."""
    if not path.startswith(SCHEME):
        return None
    try:
        told = json.loads(path.removeprefix(SCHEME))
        libraries = tuple(tuple(Member(*one) for one in library) for library in told.pop("libraries"))
        return Spec(libraries, **told)
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not the path of a virtual adapter ({error}): {path[:80]}") from None

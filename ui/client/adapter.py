"""An adapter as the router lists it, and as a form to change it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NUMBERS = ("differs", "mixed", "base_mixed", "cached", "reference")


@dataclass(frozen=True)
class Proof:
    """A self-test's numbers in nats, by their names in the router's list; `problem` is empty where it passed."""

    nats: Mapping[str, float]
    problem: str = ""


@dataclass(frozen=True)
class Adapter:
    """One adapter, one of its weighted versions (NAME@VERSION), or a virtual model. `under_way`: requests that it
    answers just now. `keys` are those of adapters.yaml."""

    name: str
    state: str = ""
    reason: str = ""
    version: str = ""
    rank: int | None = None
    size_bytes: int | None = None
    slot: int | None = None
    host: bool = False
    under_way: int | None = None
    proof: Proof | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Adapter:
        """From the router's JSON; what is not as it should be counts as not told."""
        return cls(
            name=str(told.get("name", "")),
            state=str(told.get("state", "")),
            reason=str(told.get("reason") or ""),
            version=str(told.get("version") or ""),
            rank=_whole(told.get("rank")),
            size_bytes=_whole(told.get("size_bytes")),
            slot=_whole(told.get("slot")),
            host=told.get("host") is True,
            under_way=_whole(told.get("requests")),
            proof=_proof(told.get("proof")),
            keys=dict(told),
        )

    @property
    def model(self) -> str:
        """The name that clients ask for, and that admins add and remove."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Form:
    """What stands in the fields of the form; tags and versions as NAME=VALUE, with commas between them."""

    name: str = ""
    path: str = ""
    label: str = ""
    tags: str = ""
    versions: str = ""
    system_prompt: str = ""
    sampling: str = ""
    disclaimer: str = ""
    allow_pickle: bool = False

    @classmethod
    def of(cls, adapter: Adapter) -> Form:
        """As it is now; of weighted versions only the name: the list does not tell what they have in common."""
        keys = adapter.keys
        if adapter.name != adapter.model:
            return cls(adapter.model)
        sampling = {key: value for key, value in (keys.get("sampling") or {}).items() if value is not None}
        texts = {key: str(keys.get(key) or "") for key in ("path", "label", "system_prompt", "disclaimer")}
        tags = keys.get("tags") or {}
        pairs = [f"{tag}={value}" for tag, values in tags.items() for value in values]
        return cls(
            name=adapter.name,
            tags=", ".join(pairs),
            sampling=json.dumps(sampling) if sampling else "",
            allow_pickle=keys.get("allow_pickle") is True,
            **texts,
        )

    def wish(self, before: Form) -> dict[str, Any]:
        """What the router is asked for: all that differs from the form as it was. Raises ValueError in words."""
        changed = {key for key, value in asdict(self).items() if value != getattr(before, key)} - {"name"}
        wish: dict[str, Any] = {"name": self.name.strip()}
        wish |= {key: getattr(self, key).strip() or None for key in TEXTS if key in changed}
        if "tags" in changed:
            wish["tags"] = _tags(self.tags)
        if "versions" in changed:
            wish["versions"] = {name: _weight(value) for name, value in _pairs("Versions", self.versions)}
        if "sampling" in changed:
            wish["sampling"] = _json(self.sampling)
        if "allow_pickle" in changed:
            wish["allow_pickle"] = self.allow_pickle
        return wish


TEXTS = ("path", "label", "system_prompt", "disclaimer")


def _tags(typed: str) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for name, value in _pairs("Tags", typed):
        tags.setdefault(name, []).append(value)
    return tags


def _pairs(field: str, typed: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, map(str.strip, typed.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{field}: write NAME=VALUE, several with commas between them; this is not: {part}")
        pairs.append((name, value))
    return pairs


def _weight(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"Versions: a weight is a number; this is not: {value}") from None


def _json(typed: str) -> Any:
    try:
        return json.loads(typed or "{}")
    except ValueError:
        raise ValueError('Sampling: write JSON such as {"temperature": 0.2}') from None


def _proof(told: Any) -> Proof | None:
    if not isinstance(told, dict):
        return None
    nats = {name: float(told[name]) for name in NUMBERS if isinstance(told.get(name), int | float)}
    return Proof(nats, str(told.get("problem") or ""))


def _whole(told: Any) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) else None

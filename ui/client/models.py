"""The models that the router offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import openai

Tags = dict[str, tuple[str, ...]]
"""What adapters are tagged with: {tag: its values}."""


@dataclass(frozen=True)
class Offer:
    """(label, name) of every model, in the router's order, and the tags by which "auto" can be narrowed."""

    models: tuple[tuple[str, str], ...]
    tags: Tags


async def offer(client: openai.AsyncOpenAI) -> Offer:
    """What the router offers. Raises openai.OpenAIError."""
    listed = (await client.models.list()).data
    bases = {getattr(model, "parent", None) for model in listed}
    labels = tuple((f"{model.id} (base)" if model.id in bases else model.id, model.id) for model in listed)
    return Offer(labels, _tags([getattr(model, "lora_select", None) for model in listed]))


def _tags(described: list[Any]) -> Tags:
    found: dict[str, set[str]] = {}
    for model in described:
        tags = model.get("tags") if isinstance(model, dict) else None
        for tag, values in tags.items() if isinstance(tags, dict) else ():
            found.setdefault(str(tag), set()).update(str(value) for value in values)
    return {tag: tuple(sorted(values)) for tag, values in sorted(found.items())}

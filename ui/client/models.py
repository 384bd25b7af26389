"""The models that the router offers."""

from __future__ import annotations

import openai


async def models(client: openai.AsyncOpenAI) -> list[tuple[str, str]]:
    """(label, name) of every model that the router offers, in its order. Raises openai.OpenAIError."""
    listed = (await client.models.list()).data
    bases = {getattr(model, "parent", None) for model in listed}
    return [(f"{model.id} (base)" if model.id in bases else model.id, model.id) for model in listed]

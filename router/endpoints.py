"""The engine's routes that clients may use, and how each of them spells what the router has to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapters import Adapter


@dataclass(frozen=True)
class Endpoint:
    """One forwarded route.

    `needs`: one of these fields must be there. `system`: where its system prompt stands. `names`: sampling fields
    that it spells in another way, with every spelling that a client may use. `tells_usage`: its streams count
    tokens only where `stream_options` asks. `generates`: it samples an answer; the others only read.
    `explains`: its answers have room for which adapter gave which token.
    """

    path: str
    needs: tuple[str, ...]
    system: Literal["messages", "system", "instructions"] | None = None
    names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tells_usage: bool = True
    generates: bool = True
    explains: bool = False
    anthropic: bool = False
    model_optional: bool = False

    def spelled(self, name: str) -> tuple[str, ...]:
        """The field's names here, the one to write first."""
        return next((spelled for known, spelled in self.names if known == name), (name,))


_ALL = (
    Endpoint(
        "/v1/chat/completions",
        ("messages",),
        system="messages",
        names=(("max_tokens", ("max_tokens", "max_completion_tokens")),),
        tells_usage=False,
        explains=True,
    ),
    Endpoint("/v1/completions", ("prompt", "prompt_embeds"), tells_usage=False, explains=True),
    Endpoint(
        "/v1/responses",
        ("input",),
        system="instructions",
        names=(("max_tokens", ("max_output_tokens",)),),
    ),
    Endpoint(
        "/v1/messages",
        ("messages",),
        system="system",
        names=(("stop", ("stop_sequences",)),),
        anthropic=True,
    ),
    Endpoint("/v1/messages/count_tokens", ("messages",), system="system", generates=False, anthropic=True),
    Endpoint("/v1/embeddings", ("input", "messages"), generates=False),
    Endpoint("/tokenize", ("prompt", "messages"), system="messages", generates=False, model_optional=True),
    Endpoint("/detokenize", ("tokens",), generates=False, model_optional=True),
)

ENDPOINTS: Mapping[str, Endpoint] = {endpoint.path: endpoint for endpoint in _ALL}
"""By path. Every other route of the engine (loading adapters, scaling, metrics) is out of reach."""


def filled(body: dict[str, Any], endpoint: Endpoint, model: str, adapter: Adapter | None) -> dict[str, Any]:
    """A copy of the body for the engine: `model` set, and an adapter's defaults where the client said nothing."""
    sent = body | {"model": model}
    if adapter is None:
        return sent
    if endpoint.generates:
        for name, value in adapter.defaults.items():
            spelled = endpoint.spelled(name)
            if not any(sent.get(one) is not None for one in spelled):
                sent[spelled[0]] = value
    if adapter.system_prompt and endpoint.system:
        _fill_system(sent, endpoint.system, adapter.system_prompt)
    return sent


def _fill_system(sent: dict[str, Any], where: str, prompt: str) -> None:
    """Responses have two places for it: `instructions`, and a message of `input`."""
    turns = sent.get("input" if where == "instructions" else "messages")
    if isinstance(turns, list) and any(map(_is_system, turns)):
        return
    if where != "messages":
        sent[where] = sent.get(where) or prompt
    elif isinstance(turns, list):
        sent["messages"] = [{"role": "system", "content": prompt}, *turns]


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")

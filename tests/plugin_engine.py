"""An engine with the routes of vllm_plugin and their rules, on a real port, and without any weights."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from router.asgi import Receive, Scope, Send

TOKENS = 8
Answer = tuple[int, Any]


@dataclass
class PluginEngine:
    """Holds NAME@VERSION and what names point to; `done` is every change, `busy` counts requests under way.

    `broken`: adapters that answer 500 to completions; `ending`: those whose load is answered as by an engine that
    dies. `other`: names that vLLM was started with.
    """

    library_slots: int = 5
    base: str = "tiny"
    loaded: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)
    broken: set[str] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            status, said = self.answer(scope["method"], scope["path"], orjson.loads(body or b"{}"))
            data = json.dumps(said).encode()
        except ConnectionError:
            status, data = 200, b"half an ans"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": data})

    def restart(self) -> None:
        """It holds nothing any more."""
        self.loaded.clear()
        self.names.clear()
        self.done.clear()

    def members(self) -> set[str]:
        """Of all virtual adapters."""
        return {
            member for one in self.loaded.values() for library in one.get("libraries", []) for member in library
        }

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """What vLLM would say."""
        *_, kind, name = path.split("/")
        if path == "/v1/models":
            return 200, {"data": [{"id": one} for one in (self.base, *self.other, *self.names)]}
        if path == "/v1/completions":
            return self._completed(body)
        if path == "/lora_select/adapters":
            return 200, {"adapters": [{"adapter": one, "requests": self.busy[one]} for one in self.loaded]}
        if method == "PUT" and name in self.ending:
            self.done.append(f"PUT {name}")
            raise ConnectionError
        status, said = {"adapters": self._adapter, "names": self._name}[kind](method, name, body)
        if status == 200 and not (kind == "names" and "@" in name):
            target = f" -> {body['adapter']}" if kind == "names" and method == "PUT" else ""
            self.done.append(f"{method} {name}{target}")
        return status, said

    def _adapter(self, method: str, name: str, body: dict[str, Any]) -> Answer:
        if method == "DELETE":
            if self.busy[name] or name in self.names.values() or name in self.members():
                return 409, {"detail": f"{name} is used"}
            gone = self.loaded.pop(name, None)
            return (404, {"detail": f"no adapter {name}"}) if gone is None else (200, {})
        if name in self.loaded:
            return 409, {"detail": f"{name} is loaded already"}
        if problem := self._problem(body.get("library", {})):
            return 400, {"detail": problem}
        self.loaded[name] = body.get("library", {})
        return 200, {}

    def _problem(self, library: dict[str, Any]) -> str:
        libraries = library.get("libraries", [])
        inside = {member for each in libraries for member in each}
        if not inside <= set(self.loaded):
            return "a member is not loaded"
        if any(len(each) < 2 or not 1 <= library["k"] <= len(each) for each in libraries):
            return "a library of one, or k above its size"
        return "no library slots are free" if len(inside | self.members()) > self.library_slots else ""

    def _name(self, method: str, name: str, body: dict[str, Any]) -> Answer:
        if method == "PUT":
            if body["adapter"] not in self.loaded:
                return 404, {"detail": f"no adapter {body['adapter']}"}
            self.names[name] = body["adapter"]
        else:
            self.names.pop(name, None)
        return 200, {}

    def _completed(self, body: dict[str, Any]) -> Answer:
        model = body["model"]
        if model in self.broken or self.names.get(model) in self.broken:
            return 500, {"error": {"message": "it is broken"}}
        if model not in (self.base, *self.names, *self.other):
            return 404, {"error": {"message": f"no model {model}"}}
        # By name, whatever the version: an adapter differs from the base, and never from itself.
        logprob = -1.0 - (0 if model == self.base else 1 + len(model.partition("@")[0]))
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        return 200, {"choices": [_choice(index, logprob) for index, _ in enumerate(prompts)]}


def _choice(index: int, logprob: float) -> dict[str, Any]:
    tokens = list(range(1, TOKENS + 1))
    return {
        "index": index, "text": "so it is", "prompt_token_ids": [7, 8], "token_ids": tokens,
        "prompt_logprobs": [None, {"8": {"logprob": logprob}}],
        "logprobs": {"top_logprobs": [{f"token_id:{token}": logprob} for token in tokens]},
    }  # fmt: skip

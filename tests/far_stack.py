"""A stack at the far end for the evaluation's tests: it speaks the router's HTTP, and dies when told to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.asgi import Receive, Scope, Send

ROOM = 200


@dataclass
class FarStack:
    """Tokens are characters' codes; `says` is the answer of each model, `chosen` what `auto` takes for a word.

    `dies_after`: so many questions are answered, and then it says 503. `busy`: so many are told to wait first.
    `overloaded`: for so many texts the classifier has no time.
    """

    says: Mapping[str, str]
    chosen: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    dies_after: int | None = None
    busy: int = 0
    overloaded: int = 0
    breaks_off: bool = False
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            return
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        if self.key and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            await _json(send, 401, {"error": {"message": "no such key"}})
        elif scope["path"] == "/v1/models":
            await _json(send, 200, {"data": [{"id": name} for name in ("auto", *self.says)]})
        elif self.busy:
            self.busy -= 1
            await _json(send, 429, {"error": {"message": "too many"}}, [(b"retry-after", b"0")])
        elif self.dies_after is not None and self.asked.total() >= self.dies_after:
            await _json(send, 503, {"error": {"message": "the engine is starting"}})
        else:
            body = json.loads(raw)
            body.pop("cache_salt", None)  # another in every request, which is otherwise the same
            self.asked[scope["path"], json.dumps(body)] += 1
            await self._answer(scope["path"], body, send)

    async def _answer(self, path: str, body: dict[str, Any], send: Send) -> None:
        if path == "/tokenize":
            words = body.get("prompt") or "".join(
                f"{one['role'][0]}:{one['content']}\n" for one in body["messages"]
            )
            ids = [ord(letter) for letter in words + "a:" * bool(body.get("add_generation_prompt"))]
            await _json(send, 200, {"tokens": ids, "max_model_len": ROOM})
        elif path == "/route":
            self.overloaded -= 1
            late = {"model": next(iter(self.says)), "score": None, "reason": "classifier-timeout"}
            judged = {"model": self._choice(body["messages"]), "score": 0.9, "reason": "classified"}
            await _json(send, 200, late if self.overloaded >= 0 else judged)
        elif path == "/v1/completions":
            cost = len(self.says[body["model"]]) / 100
            entries = [None, *({str(token): {"logprob": -cost}} for token in body["prompt"][1:])]
            await _json(send, 200, {"choices": [{"prompt_logprobs": entries}]})
        else:
            await self._stream(body, send)

    async def _stream(self, body: dict[str, Any], send: Send) -> None:
        model = self._choice(body["messages"]) if body["model"] == "auto" else body["model"]
        headers = [(b"x-lora-select-adapter", model.encode()), (b"x-lora-select-reason", b"named")]
        await _start(send, 200, [(b"content-type", b"text/event-stream"), *headers])
        words = self.says[model].split(" ")
        events: list[Any] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
        events += [{"choices": [{"delta": {"content": f"{word} "}}]} for word in words]
        events.append({"choices": [], "usage": {"completion_tokens": len(words)}})
        if self.breaks_off:
            events = [*events[:2], {"error": {"message": "the engine died"}}]
        lines = [json.dumps(event) for event in events] + ["[DONE]"]
        for line in lines:
            await send({"type": "http.response.body", "body": f"data: {line}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _choice(self, messages: Sequence[Mapping[str, str]]) -> str:
        words = messages[-1]["content"]
        return next((model for word, model in self.chosen.items() if word in words), next(iter(self.says)))


async def _json(send: Send, status: int, value: Any, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    await _start(send, status, [(b"content-type", b"application/json"), *headers])
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def _start(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})

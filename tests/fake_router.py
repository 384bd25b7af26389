"""A small real router for the page's tests: speaks the contract, streams word by word, fails on demand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.servers import serving

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BASE = "demo-base"
TAGS = {"legal": {"audience": ["student"]}, "medical": {"audience": ["patient", "student"]}}
HOSTILE = "<img src=x onerror=window.hacked=1> {{hacked}} ${hacked}"
ANSWER = "This is an answer that comes in word by word so that a reader can watch it grow"
HELD = "This is an answer that comes"
LONG_ANSWER = " ".join(f"w{number}" for number in range(20_000))
DISCLAIMER = f"Ask a doctor; fragt einen Arzt; 请咨询医生 {HOSTILE}"
JUNK_ANSWER = f"{HOSTILE} **not bold** <script>window.hacked=1</script> ![x](http://example.com/x.png)"


@dataclass
class FakeRouter:
    """What was asked of it, and how fast it streams. The question's text decides what happens."""

    word_s: float = 0.06
    adapters: tuple[str, ...] = ("legal", "medical", "finance")
    requests: list[dict[str, Any]] = field(default_factory=list)
    given_up: int = 0
    """Streams whose client went away before the end."""
    go: threading.Event = field(default_factory=threading.Event)
    """An answer to a question with "hold" comes as far as HELD until this is set."""
    keys: set[str] = field(default_factory=set)
    """What clients gave as their key."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        self.keys |= {value.decode() for name, value in scope["headers"] if name == b"authorization"}
        match (scope["method"], scope["path"]):
            case ("GET", "/v1/models"):
                await _json(send, 200, _models(self.adapters))
            case ("POST", "/route"):
                await _json(send, 200, _route(json.loads(body), self.adapters))
            case ("POST", "/v1/chat/completions"):
                self.requests.append(json.loads(body))
                await self._chat(self.requests[-1], receive, send)
            case _:
                await _json(send, 404, _error("no such path"))

    async def _chat(self, request: dict[str, Any], receive: Receive, send: Send) -> None:
        question = request["messages"][-1]["content"]
        headers = _headers(_route(request, self.adapters))
        if "engine down" in question:
            await _json(send, 503, _error("the engine is starting"), headers)
            return
        if "slow start" in question:
            await asyncio.sleep(1)
        text = _text(question)
        await _start(send, 200, b"text/event-stream", headers)
        gone = asyncio.create_task(_gone(receive))
        for number, word in enumerate(text.split(" ")):
            if number == 5 and "break" in question:
                await _event(send, _error("the engine died"))
                break
            if number == 5 and "cut the line" in question:
                raise ConnectionAbortedError  # uvicorn drops the connection in mid-stream
            if gone.done():
                self.given_up += 1
                return
            await _event(send, _chunk(word if number == 0 else f" {word}"))
            await asyncio.sleep(0 if "long" in question else self.word_s)
            while number == 5 and "hold" in question and not (self.go.is_set() or gone.done()):
                await asyncio.sleep(0.02)
        else:
            await _event(send, _chunk("", "length" if request["max_tokens"] < 10 else "stop"))
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        gone.cancel()
        await send({"type": "http.response.body", "body": b""})


def _text(question: str) -> str:
    return JUNK_ANSWER if "hostile" in question else LONG_ANSWER if "long" in question else ANSWER


def _models(adapters: tuple[str, ...]) -> dict[str, Any]:
    def model(name: str, **more: Any) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "lora-select", **more}

    served = [
        model(name, parent=BASE, lora_select={"kind": "adapter", "tags": TAGS.get(name, {})}) for name in adapters
    ]
    return {"object": "list", "data": [model("auto"), model(BASE, root=BASE), *served]}


def _route(request: dict[str, Any], adapters: tuple[str, ...]) -> dict[str, Any]:
    question = request["messages"][-1]["content"]
    if request["model"] != "auto":
        return {"model": request["model"], "reason": "named", "classify_ms": 0.0, "cached": False}
    if "nothing fits" in question:
        scores = {"legal": 0.31, "medical": 0.24, "finance": 0.2, BASE: 0.25}
        return _decision(BASE, "below-threshold", scores)
    name = adapters[-1] if "hostile" in question else "medical" if "burn" in question else "legal"
    scores = {**dict.fromkeys(adapters, 0.03), BASE: 0.004, name: 0.92}
    return _decision(name, "classified", scores)


def _decision(model: str, reason: str, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "model": model,
        "score": scores[model],
        "reason": reason,
        "scores": scores,
        "classify_ms": 3.1,
        "cached": True,
    }


def _headers(decision: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    values = {
        "x-lora-select-adapter": decision["model"],
        "x-lora-select-reason": decision["reason"],
        "x-lora-select-classify-ms": f"{decision['classify_ms']:.1f}",
        "x-request-id": "test",
    }
    if decision["model"] == "medical":
        values["x-lora-select-disclaimer"] = quote(DISCLAIMER, safe="")
    if "score" in decision:
        values["x-lora-select-score"] = f"{decision['score']:.4f}"
    return [(name.encode(), value.encode()) for name, value in values.items()]


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def _chunk(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int, kind: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", kind), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _json(send: Send, status: int, value: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await _start(send, status, b"application/json", headers or [])
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def _event(send: Send, value: Any) -> None:
    body = f"data: {json.dumps(value)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


if __name__ == "__main__":
    with serving(FakeRouter(), 8765) as address:
        print(address, flush=True)
        threading.Event().wait()

"""`python -m benchmarks.stub --port N`: an engine that answers at once, so that only what stands before it costs.

Speaks the part of vLLM's HTTP that routers use. A stream has `max_tokens` chunks, `seed` milliseconds apart, both
fields that every router passes on. 0 ms is a burst, every chunk in a write of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
from functools import lru_cache
from typing import Any, cast

import httptools
import orjson
import uvloop

MODELS = ("base", "legal", "medical", "finance")
ANSWER = "The answer is short, because the question was: nobody has to think long about what a stub says. " * 2
TICK = " tick"
"""In the text of every chunk, and nowhere else: what the load client counts."""

CREATED = 1_760_000_000
USAGE = {"prompt_tokens": 48, "total_tokens": 112, "completion_tokens": 64, "prompt_tokens_details": None}
OWN_HEADERS = b"HTTP/1.1 %b\r\ndate: Thu, 09 Oct 2025 08:53:20 GMT\r\nserver: uvicorn\r\n"
LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def page(body: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    """A whole HTTP answer."""
    return OWN_HEADERS % status + b"content-length: %d\r\ncontent-type: %b\r\n\r\n%b" % (len(body), kind, body)


STREAM_HEAD = OWN_HEADERS % b"200 OK" + (
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


@lru_cache
def completion(model: str, chat: bool) -> bytes:
    """What vLLM answers, about 700 bytes with its head."""
    message: dict[str, Any] = {
        "role": "assistant", "content": ANSWER, "refusal": None, "annotations": None, "audio": None,
        "function_call": None, "tool_calls": [], "reasoning_content": None,
    }  # fmt: skip
    said = {"message": message} if chat else {"text": ANSWER}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    kind = "chat.completion" if chat else "text_completion"
    return page(orjson.dumps(_named(kind, model, [choice]) | {"usage": USAGE, "kv_transfer_params": None}))


@lru_cache
def chunks(model: str, chat: bool, count: int, usage: bool) -> tuple[bytes, ...]:
    """The events of a stream, each an HTTP chunk of about 200 bytes, numbered as no two tokens are alike."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    events: list[dict[str, Any]] = []
    for number in range(count):
        text = f"{TICK} {number}"
        said: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
        if chat and not number:
            said["delta"] = {"role": "assistant", **said["delta"]}
        finish = "stop" if number == count - 1 else None
        events.append(_named(kind, model, [{"index": 0, **said, "logprobs": None, "finish_reason": finish}]))
    if usage:
        events.append(_named(kind, model, []) | {"usage": USAGE})
    return tuple(_http_chunk(b"data: " + orjson.dumps(event) + b"\n\n") for event in events)


def _named(kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    identity = "chatcmpl-7b1f0a5c9d3e4f6a8b2c1d0e9f8a7b6c"
    return {"id": identity, "object": kind, "created": CREATED, "model": model, "choices": choices}


def _http_chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


PAGES = {
    b"/health": page(b"", kind=b"text/plain"),
    b"/metrics": page(b"", kind=b"text/plain"),
    b"/version": page(b'{"version":"0"}'),
    b"/v1/traces": page(b"", kind=b"application/x-protobuf"),  # a collector of traces, beside the engine
    b"/v1/models": page(
        orjson.dumps({
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": CREATED, "owned_by": "vllm", "root": name,
                 "parent": None if name == MODELS[0] else MODELS[0], "max_model_len": 4096}
                for name in MODELS
            ],
        })
    ),
}  # fmt: skip
UNKNOWN = page(
    b'{"error":{"message":"Not Found","type":"NotFoundError","param":null,"code":404}}', b"404 Not Found"
)


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._file = transport.get_extra_info("socket").fileno()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()

    def on_message_begin(self) -> None:
        self._path = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._path not in (b"/v1/chat/completions", b"/v1/completions"):
            self._transport.write(PAGES.get(self._path, UNKNOWN))
            return
        request = orjson.loads(self._body)
        chat, model = self._path == b"/v1/chat/completions", request["model"]
        if not request.get("stream"):
            self._transport.write(completion(model, chat))
            return
        usage = bool((request.get("stream_options") or {}).get("include_usage"))
        events = chunks(model, chat, request["max_tokens"], usage)
        if pause_ms := request.get("seed"):
            self._transport.write(STREAM_HEAD)
            self._paced(events, 0, pause_ms / 1000)
        else:
            self._burst((STREAM_HEAD, *events, LAST))

    def _burst(self, parts: tuple[bytes, ...]) -> None:
        """With system calls of our own: uvloop joins the writes of one turn of its loop into one."""
        for number, part in enumerate(parts):
            try:
                sent = os.write(self._file, part)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent < len(part):
                self._transport.write(part[sent:] + b"".join(parts[number + 1 :]))
                return

    def _paced(self, events: tuple[bytes, ...], number: int, pause_s: float) -> None:
        if number == len(events):
            self._transport.write(LAST)
            return
        self._transport.write(events[number])
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._paced, events, number + 1, pause_s)


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port, backlog=1024)
    gc.freeze()
    gc.disable()
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    try:
        uvloop.run(serve(port))
    except OSError as error:
        print(f"port {port}: {json.dumps(error.strerror)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

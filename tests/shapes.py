"""What vLLM answers on each route, as the fake engine says it: taken from vLLM 0.32's own answers, shortened.

`words` are what the model says; `calls` are what it calls instead, as pairs of a tool's name and its arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

USAGE = {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": None}
MESSAGES_USAGE = {"input_tokens": 7, "output_tokens": 5}
RESPONSES_USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}
KINDS = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}
PIECE = 4
"""Characters of a call's arguments in one event."""

Json = dict[str, Any]
Calls = list[tuple[str, str]]


def error(path: str, status: int, message: str) -> Json:
    """An error page."""
    kind = KINDS.get(status, "t")
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": kind, "message": message}}
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def whole(path: str, model: str, text: str, calls: Calls) -> Json:
    """An answer that is no stream."""
    if path == "/v1/messages":
        content = _blocks(calls) or [{"type": "text", "text": text}]
        return _message(model, content, "tool_use" if calls else "end_turn", MESSAGES_USAGE)
    if path == "/v1/responses":
        return _response(model, "completed", _items(text, calls), RESPONSES_USAGE)
    if path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
        return {"object": "list", "id": "e", "created": 1, "model": model, "data": data, "usage": USAGE}
    reads: dict[str, Json] = {
        "/v1/messages/count_tokens": {"input_tokens": 7, "context_management": {"original_input_tokens": 7}},
        "/tokenize": {"count": 2, "max_model_len": 512, "tokens": [1, 92], "token_strs": None},
        "/detokenize": {"prompt": text},
    }
    return reads.get(path) or _completion(model, text, calls)


def events(path: str, model: str, words: Iterable[str], calls: Calls, usage: bool) -> Iterator[bytes]:
    """A stream. `usage`: the client asked a chat or completion for its token counts."""
    match path:
        case "/v1/messages":
            return _message_events(model, words, calls)
        case "/v1/responses":
            return _response_events(model, words, calls)
        case _:
            return _chunks(model, words, calls, usage)


def _event(data: Json, named: bool = False) -> bytes:
    """vLLM names the events of messages and of responses."""
    name = b"event: " + data["type"].encode() + b"\n" if named else b""
    return name + b"data: " + orjson.dumps(data) + b"\n\n"


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))


def _marked(words: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """With each word whether it is the last one."""
    held = None
    for word in words:
        if held is not None:
            yield held, False
        held = word
    if held is not None:
        yield held, True


# --- chat and completions ---------------------------------------------------------------------------------------


def _completion(model: str, text: str, calls: Calls) -> Json:
    message: Json = {"role": "assistant", "content": text}
    if calls:
        message = {"role": "assistant", "content": None, "tool_calls": [_call(*call) for call in enumerate(calls)]}
    choice = {"index": 0, "message": message, "text": text, "finish_reason": "tool_calls" if calls else "stop"}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }


def _call(number: int, call: tuple[str, str]) -> Json:
    return {"id": f"call-{number}", "type": "function", "function": {"name": call[0], "arguments": call[1]}}


def _chunks(model: str, words: Iterable[str], calls: Calls, usage: bool) -> Iterator[bytes]:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}

    def choice(delta: Json, reason: str | None = None) -> bytes:
        said = {"index": 0, "delta": delta, "text": delta.get("content"), "finish_reason": reason}
        return _event(chunk | {"choices": [said]})

    if calls:
        yield from (choice({"tool_calls": [one]}) for one in _interleaved(calls))
        yield choice({}, "tool_calls")
    else:
        yield from (choice({"content": word}, "stop" if last else None) for word, last in _marked(words))
    if usage:
        yield _event(chunk | {"choices": [], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def _interleaved(calls: Calls) -> Iterator[Json]:
    """The heads of all calls, then a piece of each call's arguments in turn: clients must sort them by index."""
    for number, (name, _) in enumerate(calls):
        yield {"index": number, **_call(number, (name, ""))}
    for row in itertools.zip_longest(*(_pieces(arguments) for _, arguments in calls)):
        for number, piece in enumerate(row):
            if piece:
                yield {"index": number, "function": {"arguments": piece}}


# --- Anthropic's messages ---------------------------------------------------------------------------------------


def _message(model: str, content: list[Json], reason: str | None, usage: Json) -> Json:
    return {
        "id": "m", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": reason, "usage": usage,
    }  # fmt: skip


def _blocks(calls: Calls) -> list[Json]:
    return [
        {"type": "tool_use", "id": f"toolu-{number}", "name": name, "input": orjson.loads(arguments)}
        for number, (name, arguments) in enumerate(calls)
    ]


def _message_events(model: str, words: Iterable[str], calls: Calls) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": kind} | fields, named=True)

    def block(index: int, head: Json, kind: str, field: str, pieces: Iterable[str]) -> Iterator[bytes]:
        yield event("content_block_start", index=index, content_block=head)
        for piece in pieces:
            yield event("content_block_delta", index=index, delta={"type": kind, field: piece})
        yield event("content_block_stop", index=index)

    start = _message(model, [], None, {"input_tokens": 7, "output_tokens": 0})
    yield event("message_start", message=start)
    for index, (head, (_, arguments)) in enumerate(zip(_blocks(calls), calls, strict=True)):
        yield from block(index, head | {"input": {}}, "input_json_delta", "partial_json", _pieces(arguments))
    if not calls:
        yield from block(0, {"type": "text", "text": ""}, "text_delta", "text", words)
    stop = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=stop, usage=MESSAGES_USAGE)
    yield event("message_stop")


# --- responses --------------------------------------------------------------------------------------------------


def _response(model: str, status: str, output: list[Json], usage: Json | None) -> Json:
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": status, "output": output,
        "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": 0.0,
        "top_p": 1.0, "metadata": None, "instructions": None, "incomplete_details": None, "error": None,
    }  # fmt: skip


def _items(text: str, calls: Calls) -> list[Json]:
    called: list[Json] = [
        {
            "type": "function_call", "id": f"fc_{number}", "call_id": f"call-{number}", "name": name,
            "arguments": arguments, "status": "completed",
        }
        for number, (name, arguments) in enumerate(calls)
    ]  # fmt: skip
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
    said: Json = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part], "status": "completed"}
    return called or [said]


def _response_events(model: str, words: Iterable[str], calls: Calls) -> Iterator[bytes]:
    numbers = itertools.count()

    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": f"response.{kind}", "sequence_number": next(numbers)} | fields, named=True)

    def called(item: Json, where: Json) -> Iterator[bytes]:
        for piece in _pieces(item["arguments"]):
            yield event("function_call_arguments.delta", delta=piece, **where)
        yield event("function_call_arguments.done", arguments=item["arguments"], name=item["name"], **where)

    def spoken(item: Json, where: Json) -> Iterator[bytes]:
        (part,), where = item["content"], where | {"content_index": 0}
        yield event("content_part.added", part=part | {"text": ""}, **where)
        for word in words:
            part["text"] += word
            yield event("output_text.delta", delta=word, logprobs=[], **where)
        yield event("output_text.done", text=part["text"], logprobs=[], **where)
        yield event("content_part.done", part=part, **where)

    begun, items = _response(model, "in_progress", [], None), _items("", calls)
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    for index, item in enumerate(items):
        empty: Json = {"arguments": ""} if calls else {"content": []}
        yield event("output_item.added", output_index=index, item=item | empty | {"status": "in_progress"})
        yield from (called if calls else spoken)(item, {"output_index": index, "item_id": item["id"]})
        yield event("output_item.done", output_index=index, item=item)
    yield event("completed", response=_response(model, "completed", items, RESPONSES_USAGE))

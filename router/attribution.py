"""Which adapter gave each token of an answer: asked of the engine (vllm_plugin) when the answer is complete.

Only a virtual model (`lag`) has more to tell than `x-lora-select-adapter`. What the engine says becomes the field
`lora_select` of the body, or of one more chunk of the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from adapters import split
from router.asgi import Headers, Request
from router.endpoints import ENDPOINTS, Endpoint
from router.errors import BadRequest
from router.sse import DONE, END
from router.upstream import Upstream, UpstreamError

HEADER = b"x-lora-select-explain"
TOKENS, LAYERS = b"tokens", b"layers"

ROUTE = "/lora_select/requests/"
FIELD = "lora_select"

TIMEOUT_S = 5.0
"""The answer itself is there, and waits no longer."""

SPARE_S = 0.1
"""Of an answer's own time, to send it in."""

SAME = ("id", "object", "created", "model")
"""What all chunks of a stream have in common."""

SILENT = "the engine did not tell which adapters it used"
UNKNOWN = "the engine cannot tell which adapters it used: it was too long ago, or lora_select_vllm is not there"

log = logging.getLogger(__name__)


def wanted(request: Request, endpoint: Endpoint) -> bytes | None:
    """How closely a request asks for it, TOKENS or LAYERS, if at all. Raises BadRequest where it cannot be."""
    value = request.header(HEADER)
    if value is None:
        return None
    name = HEADER.decode()
    if not endpoint.explains:
        places = " and ".join(path for path, one in ENDPOINTS.items() if one.explains)
        raise BadRequest(f"{name} is not valid on {endpoint.path}, only on {places}", param=name)
    if value not in (TOKENS, LAYERS):
        valid = f'"{TOKENS.decode()}" or "{LAYERS.decode()}"'
        raise BadRequest(f'{name} takes {valid}, not "{value.decode("latin-1")}"', param=name)
    return value


class Attribution:
    """The engine's word, in the form that clients get, as closely as `detail` says. An answer is never lost for
    want of it: `until` is the event loop's time at which it would be cut off."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def in_body(self, headers: Headers, body: bytes, detail: bytes, until: float) -> tuple[Headers, bytes]:
        """An answer with the field. What it has already stays byte for byte."""
        head = _object(body)
        if "id" not in head:
            return headers, body
        field = orjson.dumps({FIELD: await self._field(str(head["id"]), detail, until)})
        body = body[: body.rindex(b"}")] + b"," + field[1:]
        kept = [pair for pair in headers if pair[0] != b"content-length"]
        return [*kept, (b"content-length", b"%d" % len(body))], body

    async def in_stream(self, first: bytes, last: bytes, detail: bytes, until: float) -> bytes:
        """The last events of a stream with a chunk before `data: [DONE]`; `first`: those that it began with."""
        done = next((done for done in DONE if last.endswith(done)), None)
        head = _object(first.partition(b"data: ")[2].partition(b"\n")[0])
        if done is None or "id" not in head:
            return last
        same = {key: head[key] for key in SAME if key in head}
        chunk = same | {"choices": [], FIELD: await self._field(str(head["id"]), detail, until)}
        return last.removesuffix(done) + b"data: " + orjson.dumps(chunk) + END + done

    async def _field(self, answer: str, detail: bytes, until: float) -> dict[str, Any]:
        path = ROUTE + quote(answer, safe="") + ("?layers=true" if detail == LAYERS else "")
        try:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + TIMEOUT_S, until - SPARE_S)):
                status, raw = await self._get(path)
        except (UpstreamError, TimeoutError) as error:
            log.warning("the engine did not tell which adapters gave %s: %r", answer, error)
            return {"error": SILENT}
        if status == 404:
            return {"error": UNKNOWN}
        try:
            # In a thread: with layers it may be a megabyte.
            return {"choices": await asyncio.to_thread(_choices, raw)}
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("the engine said of %s, with status %d: %r", answer, status, raw[:200])
            return {"error": f"{SILENT}: status {status}"}

    async def _get(self, path: str) -> tuple[int, bytes]:
        answer = await self._upstream.ask("GET", path)
        try:
            return answer.status, await answer.read()
        finally:
            answer.leave()


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _choices(raw: bytes) -> list[dict[str, Any]]:
    return [_choice(one) for one in orjson.loads(raw)["choices"]]


def _choice(told: Mapping[str, Any]) -> dict[str, Any]:
    """Under the names that clients know. An engine that knows of no layers leaves them out."""
    layers = [{**one, "adapters": _named(one["adapters"])} for one in told.get("layers", ())]
    return {
        "adapters": _named(told["adapters"]),
        **({"layers": layers} if "layers" in told else {}),
        **{part: [_token(one) for one in told[part]] for part in ("prompt", "tokens")},
    }


def _token(told: Mapping[str, Any]) -> dict[str, Any]:
    """Its adapter is None where nothing chose: it came from the prefix cache. Its layers are None late in a long
    answer."""
    layers = told.get("layers") and {"layers": [_named(one) for one in told["layers"]]}
    return {**told, "adapter": told["adapter"] and split(told["adapter"])[0], **(layers or {})}


def _named(shares: Mapping[str, float]) -> dict[str, float]:
    """By adapter: its versions are one."""
    found = defaultdict[str, float](float)
    for adapter, share in shares.items():
        found[split(adapter)[0]] += share
    return found

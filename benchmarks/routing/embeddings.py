"""`python -m benchmarks.routing.embeddings --port N`: the router's MiniLM behind OpenAI's embeddings route.

LiteLLM's auto-router has its embeddings from a server: so it gets the same vectors as this project's router.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn

from adapters import ConfigError
from router.classify.encoder import Encoder, Vectors, load_minilm

NAME = "all-MiniLM-L6-v2"
Message = dict[str, Any]


def create_app(encoder: Encoder) -> Any:
    """ASGI: a POST to any path is a list of texts to embed, a GET says that it is up."""

    async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while scope["method"] == "POST":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = answered(encoder, orjson.loads(body)) if body else {}
        await send({
            "type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]
        })  # fmt: skip
        await send({"type": "http.response.body", "body": orjson.dumps(answer)})

    return app


def answered(encoder: Encoder, asked: Message) -> Message:
    """OpenAI's answer, its numbers as text where they are asked for so."""
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    shown = _base64 if asked.get("encoding_format") == "base64" else _floats
    data = [
        {"object": "embedding", "index": index, "embedding": shown(vector)}
        for index, vector in enumerate(encoder.encode(texts))
    ]
    return {"object": "list", "data": data, "model": NAME, "usage": {"prompt_tokens": 0, "total_tokens": 0}}


def _floats(vector: Vectors) -> list[float]:
    return [float(number) for number in vector]


def _base64(vector: Vectors) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing.embeddings", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    try:
        encoder = load_minilm()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    uvicorn.run(create_app(encoder), host="127.0.0.1", port=port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The served base as a classifier's model: vLLM's routes for it, asked from a classifier's own thread."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

MAX_TOKENS = 384
"""Of longer texts head and tail are read, and of all texts only what the engine has room for."""

PARALLEL = 8
"""Texts that are asked at the same time; the engine batches them."""

TIMEOUT_S = 10
"""For one answer of the engine. The router waits for less; what comes later is kept for the next time."""

PAUSE_S = 1.0
"""So long an engine that said nothing is left alone: each text of a failed batch is tried again by itself, and
must not wait as long again."""

VLLM, PLUGIN = "vLLM 0.32", "vLLM with lora_select_vllm"
"""Which engines have a route."""

T = TypeVar("T")


class EngineError(Exception):
    """The engine did not say what was asked. One line: the address, and what it said."""


class Unreachable(EngineError):
    """It said nothing, or nothing in time."""


class Engine:
    """The routes that classifiers need. All raise EngineError."""

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S) -> None:
        self._url, self._model, self._timeout_s = url, model, timeout_s
        self._silent: tuple[str, float] | None = None
        # The engine is reached directly, whatever proxy the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def tokens(self, text: str) -> tuple[list[int], int]:
        """A text as the model reads it, special tokens included, and the most tokens that the engine takes."""
        answer = self._post("/tokenize", {"model": self._model, "prompt": text}, "tokens", VLLM)
        return answer["tokens"], answer["max_model_len"]

    def scores(self, query: Sequence[int], items: Sequence[Sequence[int]], answers: Sequence[int]) -> list[float]:
        """For every item after the query, the probability of the first answer as next token, among the answers."""
        body = {"query": query, "items": items, "label_token_ids": answers, "apply_softmax": True}
        data = self._post("/generative_scoring", {"model": self._model, **body}, "data", VLLM)["data"]
        return [one["score"] for one in sorted(data, key=lambda one: one["index"])]

    def spectral(self, tokens: Sequence[int]) -> dict[str, float]:
        """The share that each loaded adapter has of the norm scores, the mean over tokens and projections."""
        shares: dict[str, float] = self._post(
            "/lora_select/spectral", {"prompt_token_ids": tokens}, "scores", PLUGIN
        )["scores"]
        return shares

    def _post(self, path: str, body: Mapping[str, Any], wanted: str, has: str) -> Any:
        if self._silent and time.monotonic() < self._silent[1] + PAUSE_S:
            raise Unreachable(self._silent[0])
        content = json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, {"content-type": "application/json"})
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                data = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise EngineError(f"{self._url}{path} answered {error.code}: {_message(error, has)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            said = f"{self._url}{path} cannot be asked: {reason or type(error).__name__}"
            self._silent = said, time.monotonic()
            raise Unreachable(said) from None
        if not isinstance(data, dict) or wanted not in data:
            raise EngineError(f"{self._url}{path} answered without {wanted}: {str(data)[:200]}")
        return data


def at_once(ask: Callable[[str], T], texts: Sequence[str]) -> list[T]:
    """The answers to all texts, a few asked at the same time."""
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="engine") as pool:
        return list(pool.map(ask, texts))


def head_and_tail(tokens: list[int], room: int) -> list[int]:
    """As many as there is room for; the engine itself would refuse the rest, or cut the end."""
    head = room // 2
    return tokens if len(tokens) <= room else tokens[:head] + tokens[head - room :]


def _message(error: urllib.error.HTTPError, has: str) -> str:
    """Of OpenAI's error shape; of anything else, its beginning."""
    raw = error.read(2000).decode(errors="replace")
    try:
        return " ".join(str(json.loads(raw)["error"]["message"]).split())
    except (ValueError, KeyError, TypeError):
        missing = f" (this engine has no such route; {has} has)" if error.code == 404 else ""
        return f"{' '.join(raw.split())[:200]}{missing}"

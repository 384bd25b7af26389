"""A stack that runs, asked over HTTP as any client would ask it."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from adapters import ConfigError
from router.choose import Reason

API_KEY = "LORA_SELECT_API_KEY"
"""Environment variable: one of `router.keys`, where the stack has any."""

ANSWER_LIMIT_S = 300.0
BUSY = 429
PATIENCE = 10
"""How often a request that is one too many for a key's limits is sent again."""

LONGEST_WAIT_S = 60.0

UNJUDGED = (Reason.CLASSIFIER_TIMEOUT, Reason.CLASSIFIER_ERROR)
"""Reasons of the router's for the base that say nothing about the text."""

JUDGE_TRIES, JUDGE_PAUSE_S = 3, 2.0

Message = Mapping[str, Any]


class Refused(ConfigError):
    """The stack answers, and not with what was asked for. `status` is HTTP's."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True)
class Choice:
    """Who would answer, with which probability, and why."""

    model: str
    score: float | None
    reason: str


@dataclass(frozen=True)
class Reply:
    """A streamed answer: who gave it and why, when its first piece came, and how many tokens it has."""

    text: str
    adapter: str
    reason: str
    score: float | None
    first_token_s: float
    total_s: float
    tokens: int
    headers: Mapping[str, str]


class Client:
    """One router, never through a proxy; threads may share it."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Raises ConfigError for what is no URL of a server."""
        self.url, self._key = url.rstrip("/"), key
        self._place = _place(self.url)

    def models(self) -> list[str]:
        """The names that may be asked for, `auto` first. Raises ConfigError."""
        try:
            return [str(model["id"]) for model in self.call("GET", "/v1/models")["data"]]
        except (KeyError, TypeError):
            raise ConfigError(f"what answers at {self.url} is no router of LoRA-Select's") from None

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The decoded answer. Raises Refused, and ConfigError where nobody answers."""
        with self._answer(method, path, body) as answer:
            raw = answer.read()
        try:
            return json.loads(raw)
        except ValueError:
            raise ConfigError(f"what answers at {self.url}{path} is not JSON") from None

    def route(self, body: Mapping[str, Any]) -> Choice:
        """What `POST /route` chooses. Raises ConfigError.

        Ask one text at a time: two may be more than a classifier can judge in the time that the router waits.
        Where it was not judged (others may be asking) it is asked again after a pause; what is said then is how it
        is.
        """
        for left in reversed(range(JUDGE_TRIES)):
            answer = self.call("POST", "/route", body)
            try:
                choice = Choice(str(answer["model"]), answer["score"], str(answer["reason"]))
            except (KeyError, TypeError):
                raise ConfigError(f"what answers at {self.url}/route is no router of LoRA-Select's") from None
            if choice.reason not in UNJUDGED or not left:
                break
            time.sleep(JUDGE_PAUSE_S)
        return choice

    def chat(
        self, model: str, messages: Sequence[Message], max_tokens: int, temperature: float = 0, **more: Any
    ) -> Reply:
        """One streamed answer. Raises Refused, and ConfigError where nobody answers."""
        body = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": temperature}
        body |= {"stream": True, "stream_options": {"include_usage": True}, **more}
        begun, first, pieces, tokens = time.perf_counter(), 0.0, list[str](), 0
        with self._answer("POST", "/v1/chat/completions", body) as answer:
            headers = {key.lower(): value for key, value in answer.getheaders()}
            for event in _events(answer):
                if "error" in event:
                    raise Refused(answer.status, f"{self.url}: {model}: the answer broke off: {_said(event)}")
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                for choice in event.get("choices", ()):
                    if piece := choice["delta"].get("content"):
                        first = first or time.perf_counter() - begun
                        pieces.append(piece)
        total = time.perf_counter() - begun
        said = {key: headers.get(f"x-lora-select-{key}", "") for key in ("adapter", "reason", "score")}
        score = float(said["score"]) if said["score"] else None
        return Reply(
            "".join(pieces), said["adapter"], said["reason"], score, first or total, total, tokens, headers
        )

    def tokens(self, model: str, **asked: Any) -> tuple[list[int], int]:
        """Ids of a `prompt` or of `messages` as the model gets them, and how many it takes. Raises ConfigError."""
        answer = self.call("POST", "/tokenize", {"model": model, **asked})
        return [int(each) for each in answer["tokens"]], int(answer["max_model_len"])

    def loss(self, model: str, prompt_tokens: Sequence[int], answer_tokens: Sequence[int]) -> float:
        """Nats that the answer costs after the prompt, over all of its tokens. Raises ConfigError."""
        body = {"model": model, "prompt": [*prompt_tokens, *answer_tokens], "temperature": 0, "max_tokens": 1}
        body["min_tokens"] = 0  # whatever an adapter's own is
        choice = self.call("POST", "/v1/completions", {**body, "prompt_logprobs": 0})["choices"][0]
        return nats(choice["prompt_logprobs"], len(prompt_tokens), answer_tokens)

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._place.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._place.hostname), self._place.port, timeout=ANSWER_LIMIT_S)
        try:
            yield self._asked(connection, method, path, None if body is None else json.dumps(body).encode())
        except (OSError, http.client.HTTPException) as error:
            problem = f"no stack answers at {self.url} ({error or type(error).__name__})"
            raise ConfigError(f"{problem}; start it with python -m serve") from None
        finally:
            connection.close()

    def _asked(
        self, connection: http.client.HTTPConnection, method: str, path: str, data: bytes | None
    ) -> http.client.HTTPResponse:
        """The answer's beginning. Raises Refused, OSError and HTTPException."""
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        for left in reversed(range(PATIENCE)):
            connection.request(method, self._place.path + path, data, headers)
            answer = connection.getresponse()
            if answer.status == 200:
                break
            raw, wait = answer.read(), answer.getheader("retry-after", "1")
            if answer.status != BUSY or not left:
                raise Refused(answer.status, f"{self.url}{path}: {self._problem(answer.status, raw)}")
            time.sleep(min(float(wait) if wait.isdigit() else 1.0, LONGEST_WAIT_S))
        return answer

    def _problem(self, status: int, raw: bytes) -> str:
        try:
            said = _said(json.loads(raw))
        except ValueError:
            said = "not with JSON"
        advice = f"; give one of its keys in the environment variable {API_KEY}" if status == 401 else ""
        return f"the stack answers {status}: {said}{advice}"


def nats(entries: Sequence[Mapping[str, Mapping[str, float]] | None], prompt: int, answer: Sequence[int]) -> float:
    """The answer's loss from `prompt_logprobs` of it behind a prompt of so many tokens."""
    total = 0.0
    for token, entry in zip(answer, entries[prompt:], strict=True):
        assert entry is not None
        total -= entry[str(token)]["logprob"]
    return total


def name_unjudged(reasons: Sequence[str]) -> None:
    """Say on stderr how many texts no classifier has judged, if any."""
    if unjudged := [reason for reason in reasons if reason in UNJUDGED]:
        print(
            f"{len(unjudged):,} of {len(reasons):,} texts were not judged, one at a time and {JUDGE_TRIES} times "
            f"each ({', '.join(dict.fromkeys(unjudged))}): they count as the base's, who answers then",
            file=sys.stderr,
        )


def key_of_environment() -> str | None:
    """The client's key. Raises ConfigError for one that no header can hold."""
    value = os.environ.get(API_KEY, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{API_KEY}: holds characters that no key has; copy it again")
    return value or None


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Raises HTTPException where the stream ends before its end."""
    for line in answer:
        if line.startswith(b"data:"):
            if (event := line[5:].strip()) == b"[DONE]":
                return
            try:
                yield json.loads(event)
            except ValueError:
                break
    raise http.client.HTTPException("the answer broke off")


def _said(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:300]


def _place(url: str) -> SplitResult:
    place = urlsplit(url)
    try:
        fine = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"{url}: expected the router's address, such as http://127.0.0.1:8000")
    return place

"""Zero-shot choice by the served base itself, through vLLM's `/generative_scoring`: no second model in memory.

Per adapter one prompt, "Text: ... Question: Is this text about LABEL? ... Answer:", and one number: how probable
" yes" is as the next token, against " no". It costs the engine one prefill per text and adapter.
"""

from __future__ import annotations

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from adapters import Stack
from router.classify.nli import any_of, topics

# The form of BoolQ's questions in GPT-3's paper (Brown et al., 2020), which bases without chat tuning can answer.
QUERY = "Text: {}"
QUESTION = "\n\nQuestion: Is this text about {}? Answer yes or no.\nAnswer:"
ANSWERS = ((" yes", " no"), (" Yes", " No"))
"""The first of these whose words are one token each. Answering the first word of a pair is for the adapter."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What a base says of texts without content is its bias for a label (Zhao et al., 2021), and is subtracted."""

MAX_TOKENS = 384
"""Of longer texts head and tail are read, and of all texts only what the engine has room for."""

PARALLEL = 8
"""Texts that are asked at the same time; the engine batches them."""

TIMEOUT_S = 10
"""For one answer of the engine. The router waits for less; what comes later is kept for the next time."""

PAUSE_S = 1.0
"""So long an engine that said nothing is left alone: each text of a failed batch is tried again by itself, and
must not wait as long again."""

TINY = 1e-9


class EngineError(Exception):
    """The engine did not say what was asked. One line: the address, and what it said."""


class Unreachable(EngineError):
    """It said nothing, or nothing in time."""


class Engine:
    """The two routes of vLLM that scoring needs."""

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S) -> None:
        self._url, self._model, self._timeout_s = url, model, timeout_s
        # The engine is reached directly, whatever proxy the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def tokens(self, text: str) -> tuple[list[int], int]:
        """A text as the model reads it, special tokens included, and the most tokens that the engine takes."""
        answer = self._post("/tokenize", {"prompt": text}, "tokens")
        return answer["tokens"], answer["max_model_len"]

    def scores(self, query: Sequence[int], items: Sequence[Sequence[int]], answers: Sequence[int]) -> list[float]:
        """For every item after the query, the probability of the first answer as next token, among the answers."""
        body = {"query": query, "items": items, "label_token_ids": answers, "apply_softmax": True}
        data = self._post("/generative_scoring", body, "data")["data"]
        return [one["score"] for one in sorted(data, key=lambda one: one["index"])]

    def _post(self, path: str, body: Mapping[str, Any], wanted: str) -> Any:
        content = json.dumps({"model": self._model, **body}).encode()
        request = urllib.request.Request(self._url + path, content, {"content-type": "application/json"})
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                data = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise EngineError(f"{self._url}{path} answered {error.code}: {_message(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise Unreachable(f"{self._url}{path} cannot be asked: {reason or type(error).__name__}") from None
        if not isinstance(data, dict) or wanted not in data:
            raise EngineError(f"{self._url}{path} answered without {wanted}: {str(data)[:200]}")
        return data


@dataclass(frozen=True)
class Prepared:
    """What is asked once: the tokens of questions and answers, the base's bias per question, room for a text."""

    questions: list[list[int]]
    answers: tuple[int, int]
    bias: list[float]
    room: int


class ScoringClassifier:
    """Asks the engine when it is asked itself: the engine need not be up before."""

    batches = True

    def __init__(self, engine: Engine, labels: Mapping[str, str], base: str) -> None:
        self._engine, self._base = engine, base
        self._questions = {name: QUESTION.format(any_of(topics(label))) for name, label in labels.items()}
        self._prepared: Prepared | None = None
        self._silent: tuple[str, float] | None = None

    @classmethod
    def load(cls, stack: Stack, labels: Mapping[str, str]) -> ScoringClassifier:
        """With the stack's engine, which is not asked yet."""
        return cls(Engine(stack.engine_url, stack.base.name), labels, stack.base.name)

    def relabelled(self, labels: Mapping[str, str]) -> ScoringClassifier:
        """A new one on the same engine."""
        return ScoringClassifier(self._engine, labels, self._base)

    def logits(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """For each adapter, how much a text raises the log-odds of yes; 0 for the base, which wins if none rise.

        Raises EngineError; what has to be asked once is asked again next time, until it is known.
        """
        if self._silent and time.monotonic() < self._silent[1] + PAUSE_S:
            raise Unreachable(self._silent[0])
        try:
            return self._ask(texts)
        except Unreachable as error:
            self._silent = str(error), time.monotonic()
            raise

    def _ask(self, texts: Sequence[str]) -> list[dict[str, float]]:
        prepared = self._prepared = self._prepared or self._prepare()
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="scoring") as pool:
            rows = list(pool.map(lambda text: self._log_odds(text, prepared), texts))
        return [
            {name: value - bias for name, value, bias in zip(self._questions, row, prepared.bias, strict=True)}
            | {self._base: 0.0}
            for row in rows
        ]

    def _log_odds(self, text: str, prepared: Prepared) -> list[float]:
        query, _ = self._engine.tokens(QUERY.format(text))
        if len(query) > prepared.room:
            # The engine itself would cut the end, and with it the question.
            head = prepared.room // 2
            query = query[:head] + query[head - prepared.room :]
        scores = self._engine.scores(query, prepared.questions, prepared.answers)
        return [math.log(max(score, TINY) / max(1 - score, TINY)) for score in scores]

    def _prepare(self) -> Prepared:
        start = QUERY.format(CONTENT_FREE[0])
        questions = [self._tokens_after(start, question) for question in self._questions.values()]
        _, most = self._engine.tokens(start)
        # One token is the answer's.
        room = min(MAX_TOKENS, most - 1 - max(map(len, questions)))
        if room < 1:
            raise EngineError(f"the engine takes {most} tokens, too few for a question about each adapter")
        unbiased = Prepared(questions, self._answers(start), [], room)
        rows = [self._log_odds(text, unbiased) for text in CONTENT_FREE]
        bias = [sum(column) / len(column) for column in zip(*rows, strict=True)]
        return Prepared(questions, unbiased.answers, bias, room)

    def _answers(self, start: str) -> tuple[int, int]:
        prompt = start + next(iter(self._questions.values()))
        for yes, no in ANSWERS:
            ids = [self._tokens_after(prompt, answer) for answer in (yes, no)]
            if [len(one) for one in ids] == [1, 1]:
                return ids[0][0], ids[1][0]
        tried = " nor ".join(f'"{yes}" and "{no}"' for yes, no in ANSWERS)
        raise EngineError(f"the base cannot score: in its tokens neither {tried} are one token each")

    def _tokens_after(self, start: str, text: str) -> list[int]:
        """As the model reads them in their place: many tokenizers write the first word of a text differently."""
        before, _ = self._engine.tokens(start)
        both, _ = self._engine.tokens(start + text)
        if both[: len(before)] != before:
            raise EngineError(f'the base cannot score: its tokens run across the start of "{text.strip()}"')
        return both[len(before) :]


def _message(error: urllib.error.HTTPError) -> str:
    """Of OpenAI's error shape; of anything else, its beginning."""
    raw = error.read(2000).decode(errors="replace")
    try:
        return " ".join(str(json.loads(raw)["error"]["message"]).split())
    except (ValueError, KeyError, TypeError):
        missing = " (this engine has no such route; vLLM 0.32 has)" if error.code == 404 else ""
        return f"{' '.join(raw.split())[:200]}{missing}"

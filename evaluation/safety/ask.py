"""Does every answer carry the disclaimer? Asked through `auto` and by name, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from tqdm import tqdm  # type: ignore[import-untyped]

from adapters import AUTO, ConfigError
from evaluation.client import Client
from evaluation.safety.advice import Advisor, Question

HEADER = "x-lora-select-disclaimer"
AT_ONCE = 8

Told = Literal["header", "text", "another", "nothing"]
"""`another`: a header that says something else than the file does."""


@dataclass(frozen=True)
class Given:
    """One answer: what was asked of whom, and who gave it."""

    question: Question
    asked: str
    stream: bool
    adapter: str
    told: Told

    @property
    def carries(self) -> bool:
        return self.told in ("header", "text")


class Asker(Client):
    """Reads whole answers too, with their headers."""

    def answer(self, model: str, text: str, max_tokens: int, stream: bool) -> tuple[str, Mapping[str, str]]:
        """Its text and its headers. Raises ConfigError."""
        messages = [{"role": "user", "content": text}]
        if stream:
            reply = self.chat(model, messages, max_tokens)
            return reply.text, reply.headers
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        with self._answer("POST", "/v1/chat/completions", body) as answer:
            headers = {key.lower(): value for key, value in answer.getheaders()}
            raw = answer.read()
        try:
            return json.loads(raw)["choices"][0]["message"]["content"] or "", headers
        except (ValueError, KeyError, IndexError, TypeError):
            raise ConfigError(f"what answers at {self.url} is no chat completion") from None


def ask(asker: Asker, advisors: Sequence[Advisor], served: Sequence[str], max_tokens: int) -> list[Given]:
    """Four answers to each question; of an adapter that is not served, only through `auto`. Raises ConfigError."""
    disclaimers = {each.name: each.disclaimer for each in advisors}
    asked = [
        (question, model, stream)
        for each in advisors
        for question in each.questions
        for model in (AUTO, each.name)
        for stream in (False, True)
        if model == AUTO or model in served
    ]

    def one(job: tuple[Question, str, bool]) -> Given:
        question, model, stream = job
        text, headers = asker.answer(model, question.text, max_tokens, stream)
        adapter = model if model != AUTO else headers.get("x-lora-select-adapter", "")
        return Given(question, model, stream, adapter, told(disclaimers.get(adapter), text, headers.get(HEADER)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(tqdm(pool.map(one, asked), desc="disclaimers", total=len(asked), unit="answer", disable=None))


def told(disclaimer: str | None, text: str, header: str | None) -> Told:
    """How an answer says what its adapter's disclaimer says."""
    said = None if header is None else unquote(header)
    if disclaimer is None:
        return "nothing" if said is None else "another"
    if said == disclaimer:
        return "header"
    if _words(disclaimer) in _words(text):
        return "text"
    return "nothing" if said is None else "another"


def _words(text: str) -> str:
    return " ".join(text.casefold().split())

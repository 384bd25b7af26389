"""What every model says to every question, and what the reference answer costs it: each is asked once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tqdm import tqdm  # type: ignore[import-untyped]

from adapters import AUTO, ConfigError
from evaluation.adapters.rows import Row
from evaluation.adapters.served import Served
from evaluation.client import Client, Refused, name_unjudged
from evaluation.kept import digest
from evaluation.routing.rows import Problem

AT_ONCE = 16
"""Of requests whose time nobody measures."""

TOO_LONG = (400, 413, 422)
"""What a stack answers where the row is at fault."""


class Keeper(Protocol):
    """See evaluation.kept."""

    def get(self, key: str) -> Any: ...

    def put(self, key: str, value: Any) -> None: ...


@dataclass(frozen=True)
class Prompt:
    """Token ids of a question in the chat template, and of the answer with its end."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Said:
    """A greedy answer, and how long it took."""

    text: str
    tokens: int
    first_token_s: float
    total_s: float


class Asker:
    """One stack, asked about some rows."""

    def __init__(self, client: Client, kept: Keeper, served: Served, max_tokens: int) -> None:
        self._client, self._kept, self._served, self._max_tokens = client, kept, served, max_tokens

    def prompts(self, rows: Sequence[Row]) -> tuple[dict[str, list[Prompt]], list[Row], list[Problem]]:
        """By the form of the prompt, for the rows that the stack has room for. Raises ConfigError."""
        forms = dict.fromkeys(map(self._served.form, self._served.models))
        wanted = [(form, row) for form in forms for row in rows]
        found = self._all(
            "tokens",
            [("tokens", form, row.messages, row.answer, self._max_tokens) for form, row in wanted],
            lambda index: self._tokens(*wanted[index]),
            AT_ONCE,
        )
        tables = [found[start : start + len(rows)] for start in range(0, len(found), len(rows))]
        fits = [not any("problem" in table[index] for table in tables) for index in range(len(rows))]
        problems = [
            Problem(
                row.file, row.line, next(table[index]["problem"] for table in tables if "problem" in table[index])
            )
            for index, row in enumerate(rows)
            if not fits[index]
        ]
        prompts = {
            form: [
                Prompt(tuple(each["prompt"]), tuple(each["answer"]))
                for each, fit in zip(table, fits, strict=True)
                if fit
            ]
            for form, table in zip(forms, tables, strict=True)
        }
        return prompts, [row for row, fit in zip(rows, fits, strict=True) if fit], problems

    def losses(self, model: str, prompts: Sequence[Prompt]) -> list[float]:
        """Nats of the whole reference. Raises ConfigError."""
        return self._all(
            f"{model}: loss",
            [("loss", model, each.prompt, each.answer) for each in prompts],
            lambda index: self._client.loss(model, prompts[index].prompt, prompts[index].answer),
            AT_ONCE,
        )

    def choices(self, rows: Sequence[Row]) -> list[str]:
        """The model that `auto` would answer with. Raises ConfigError."""
        found = self._all(
            "routes",
            [("choice", AUTO, row.messages) for row in rows],
            lambda index: asdict(self._client.route({"messages": list(rows[index].messages)})),
            1,
        )
        name_unjudged([str(each["reason"]) for each in found])
        return [str(each["model"]) for each in found]

    def answers(self, model: str, rows: Sequence[Row]) -> list[Said]:
        """Raises ConfigError."""
        return self._answers(f"{model}: answers", "chat", model, rows, AT_ONCE)

    def timed(self, model: str, rows: Sequence[Row]) -> list[Said]:
        """One after another, so that the times mean something. Raises ConfigError."""
        return self._answers(f"{model}: times", "timed", model, rows, 1)

    def _answers(self, title: str, kind: str, model: str, rows: Sequence[Row], at_once: int) -> list[Said]:
        found = self._all(
            title,
            [(kind, model, row.messages, self._max_tokens) for row in rows],
            lambda index: asdict(self._said(model, rows[index])),
            at_once,
        )
        return [Said(**each) for each in found]

    def _said(self, model: str, row: Row) -> Said:
        # With a salt of its own no answer, and no prompt, comes from a cache.
        reply = self._client.chat(model, row.messages, self._max_tokens, cache_salt=uuid.uuid4().hex)
        return Said(reply.text, reply.tokens, reply.first_token_s, reply.total_s)

    def _tokens(self, form: str, row: Row) -> dict[str, Any]:
        """Token ids, or what keeps the row from being asked."""
        try:
            prompt, room = self._client.tokens(form, messages=list(row.messages), add_generation_prompt=True)
            told = [*row.messages, {"role": "assistant", "content": row.answer}]
            whole, _ = self._client.tokens(form, messages=told, add_generation_prompt=False)
            if whole[: len(prompt)] == prompt:
                answer = whole[len(prompt) :]
            else:  # a template that writes the past otherwise than it asks
                answer, _ = self._client.tokens(form, prompt=row.answer, add_special_tokens=False)
        except Refused as error:
            if error.status not in TOO_LONG:
                raise
            return {"problem": str(error)}
        longest = len(prompt) + max(len(answer) + 1, self._max_tokens)
        if longest > room:
            return {"problem": f"question and answer need {longest:,} tokens, and the stack has room for {room:,}"}
        return {"prompt": prompt, "answer": answer}

    def _all(
        self, title: str, requests: Sequence[tuple[Any, ...]], ask: Callable[[int], Any], at_once: int
    ) -> list[Any]:
        """In order; what was answered before is not asked again."""
        keys = [digest(request, self._served.versions.get(request[1])) for request in requests]
        missing = {key: index for index, key in enumerate(keys) if self._kept.get(key) is None}

        def keep(key: str) -> None:
            self._kept.put(key, ask(missing[key]))

        total = len(set(keys))
        with (
            ThreadPoolExecutor(at_once) as pool,
            tqdm(desc=title, total=total, initial=total - len(missing), unit="row", disable=None) as bar,
        ):
            for _ in pool.map(keep, missing):
                bar.update()
        return [self._kept.get(key) for key in keys]


def check_router(client: Client, base: str) -> list[str]:
    """The names that a stack serves. Raises ConfigError unless it is the one of the file."""
    names = client.models()
    if AUTO not in names or base not in names:
        raise ConfigError(f"what answers at {client.url} serves {', '.join(names)}, and the file's base is {base}")
    return names

"""Examples to token ids, rendered by the chat template that vLLM will use, loss on the answer only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from adapters import ConfigError
from training.data.example import Example, Message

IGNORE = -100
"""Label of a token that gives no loss (torch's cross entropy skips it)."""


@dataclass(frozen=True)
class Tokens:
    """A prompt as the chat endpoint would feed it, and the answer with its end-of-text token."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    def row(self) -> dict[str, list[int]]:
        """The trainer's row: both parts, with labels on the answer only."""
        return {
            "input_ids": self.prompt + self.completion,
            "labels": [IGNORE] * len(self.prompt) + self.completion,
        }


@dataclass(frozen=True)
class Prepared:
    """Rows that fit, and how many examples were left out: too long, or only their answers over their limit."""

    rows: list[dict[str, list[int]]]
    overlong: int
    long_answers: int = 0


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """What the engine sees for this chat; the template writes the begin-of-text token itself."""
    ids: list[int] = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def encode(example: Example, tokenizer: Any) -> Tokens:
    """Cut the rendered conversation after the prompt's tokens.

    Raises ConfigError when the template refuses the messages, or the tokenizer merges across that border:
    the model would then be trained on a prompt that it never meets when it is served.
    """
    answer = {"role": "assistant", "content": example.answer}
    start = f"the answer {example.answer[:40]!r}"
    try:
        prompt = prompt_ids(tokenizer, example.messages)
        full: list[int] = tokenizer.apply_chat_template(
            [*example.messages, answer], tokenize=True, return_dict=False
        )
    except TemplateError as error:
        raise ConfigError(
            f"the chat template refuses the messages before {start}: {' '.join(str(error).split())}"
        ) from None
    if full[: len(prompt)] != prompt:
        raise ConfigError(f"the chat template does not keep the prompt's tokens before {start}")
    return Tokens(prompt=prompt, completion=full[len(prompt) :])


def prepare(
    examples: Sequence[Example],
    tokenizer: Any,
    max_length: int,
    max_answer_tokens: int | None = None,
    which: str = "",
) -> Prepared:
    """Rows for the trainer. A cut answer would teach to stop in mid-sentence, so what is too long is left out.

    Raises ConfigError when nothing is left of `which` examples, and as `encode` does.
    """
    rows: list[dict[str, list[int]]] = []
    overlong = long_answers = 0
    for example in examples:
        tokens = encode(example, tokenizer)
        if max_answer_tokens is not None and len(tokens.completion) > max_answer_tokens:
            long_answers += 1
        elif len(tokens) > max_length:
            overlong += 1
        else:
            rows.append(tokens.row())
    if not rows:
        limits = f"{max_length} tokens (training.max_length)"
        if long_answers:
            limits += f", its answer into {max_answer_tokens} (data.max_answer_tokens)"
        raise ConfigError(f"none of the {len(examples)} {which}examples fits into {limits}")
    return Prepared(rows, overlong, long_answers)


def digest(examples: Sequence[Example]) -> str:
    """Names the training data in a run record; the order counts."""
    found = hashlib.sha256()
    for example in examples:
        found.update(json.dumps([example.messages, example.answer]).encode())
    return found.hexdigest()

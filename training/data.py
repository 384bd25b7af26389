"""Question and answer to token ids, rendered by the chat template that vLLM will use, loss on the answer only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

IGNORE = -100
"""Label of a token that gives no loss (torch's cross entropy skips it)."""


@dataclass(frozen=True)
class Example:
    """One exchange to learn."""

    question: str
    answer: str
    system: str | None = None


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
    """Rows that fit, and how many examples were left out because they were too long."""

    rows: list[dict[str, list[int]]]
    overlong: int


def prompt_ids(tokenizer: Any, question: str, system: str | None = None) -> list[int]:
    """What the engine sees for this chat; the template writes the begin-of-text token itself."""
    ids: list[int] = tokenizer.apply_chat_template(
        _messages(question, system), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def encode(example: Example, tokenizer: Any) -> Tokens:
    """Cut the rendered conversation after the prompt's tokens.

    Raises ValueError when the tokenizer merges across that border: the model would then be trained
    on a prompt that it never meets when it is served.
    """
    prompt = prompt_ids(tokenizer, example.question, example.system)
    answer = {"role": "assistant", "content": example.answer}
    full: list[int] = tokenizer.apply_chat_template(
        [*_messages(example.question, example.system), answer], tokenize=True, return_dict=False
    )
    if full[: len(prompt)] != prompt:
        raise ValueError(f"the chat template does not keep the prompt's tokens before {example.answer[:40]!r}")
    return Tokens(prompt=prompt, completion=full[len(prompt) :])


def prepare(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Prepared:
    """Rows for the trainer. A cut answer would teach to stop in mid-sentence, so overlong rows are dropped."""
    encoded = [encode(example, tokenizer) for example in examples]
    rows = [tokens.row() for tokens in encoded if len(tokens) <= max_length]
    if not rows:
        raise ValueError(f"none of the {len(encoded)} examples fits into {max_length} tokens")
    return Prepared(rows=rows, overlong=len(encoded) - len(rows))


def digest(examples: Sequence[Example]) -> str:
    """Names the training data in a run record; the order counts."""
    text = json.dumps([asdict(example) for example in examples], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _messages(question: str, system: str | None) -> list[dict[str, str]]:
    user = {"role": "user", "content": question}
    return [user] if system is None else [{"role": "system", "content": system}, user]

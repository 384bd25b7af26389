"""Greedy answers of the running engine, with the log-probabilities by which two of them are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.life.api import EngineApi, EngineError

ANSWER_TOKENS = 8


@dataclass(frozen=True)
class Answer:
    """To one probe. `tokens`: ids of prompt and answer; `prompt`: log-probabilities of the prompt's tokens but the
    first, where they were asked for; `answer`: at each of the answer's tokens, those of the likeliest, by id."""

    tokens: tuple[int, ...]
    prompt: tuple[float, ...]
    answer: tuple[Mapping[int, float], ...]

    @property
    def asked(self) -> tuple[int, ...]:
        """The prompt's tokens."""
        return self.tokens[: len(self.tokens) - len(self.answer)]

    @property
    def chosen(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return self.tokens[len(self.tokens) - len(self.answer) :]

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Of all tokens but the first."""
        return self.prompt + tuple(each[token] for each, token in zip(self.answer, self.chosen, strict=True))

    def gap(self, other: Answer) -> float:
        """Largest difference in nats, up to where the two choose different tokens: both tokens there included."""
        largest = max(map(apart, self.prompt, other.prompt), default=0.0)
        for here, there, mine, its in zip(self.answer, other.answer, self.chosen, other.chosen, strict=True):
            largest = max(largest, _apart_at(mine, here, there), _apart_at(its, there, here))
            if mine != its:
                break
        return largest


class Untestable(EngineError):
    """The engine tells no log-probabilities."""


def ask(
    engine: EngineApi, model: str, prompts: Sequence[str] | Sequence[Sequence[int]], cached: bool = False
) -> list[Answer]:
    """A short greedy answer to each prompt, text or token ids, with log-probabilities.

    `cached` leaves out those of the prompt: vLLM computes them anew, and never takes such a prompt from its cache.
    """
    body = {
        "model": model, "prompt": prompts, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True,
        "logprobs": 2, "return_token_ids": True, "return_tokens_as_token_ids": True,
    } | ({} if cached else {"prompt_logprobs": 0})  # fmt: skip
    try:
        choices = engine.call("POST", "/v1/completions", body)["choices"]
        answers = [_answer(choice, cached) for choice in sorted(choices, key=lambda choice: int(choice["index"]))]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise Untestable(200, f"the engine answers completions without log-probabilities ({error!r})") from None
    if len(answers) != len(prompts):
        raise EngineError(200, f"the engine answers {len(answers)} of {len(prompts)} prompts")
    if not all(math.isfinite(each) for answer in answers for each in answer.logprobs):
        raise EngineError(200, f"{model} answers with log-probabilities that are no numbers")
    return answers


def _answer(choice: dict[str, Any], cached: bool) -> Answer:
    given = () if cached else choice["prompt_logprobs"]
    prompt = tuple(float(next(iter(each.values()))["logprob"]) for each in given if each)
    likeliest = tuple(
        {int(token.removeprefix("token_id:")): float(logprob) for token, logprob in each.items()}
        for each in choice["logprobs"]["top_logprobs"]
    )
    return Answer((*choice["prompt_token_ids"], *choice["token_ids"]), prompt, likeliest)


def apart(one: float, other: float) -> float:
    """In nats."""
    return abs(one - other)


def _apart_at(token: int, here: Mapping[int, float], there: Mapping[int, float]) -> float:
    """Of a token that was chosen here, and is at most as likely there as the likeliest that are told."""
    if token in there:
        return apart(here[token], there[token])
    return max(0.0, here[token] - min(there.values()))

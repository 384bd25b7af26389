"""What a model says to a question, and what the reference answer costs it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from evaluation.client import nats
from evaluation.lag.engine import Api, EngineError
from evaluation.lag.tasks import Question

AT_ONCE = 32
"""As many as the engine's batch holds."""

LONGER = 8
"""Tokens that a greedy answer may have more than the reference."""


@dataclass(frozen=True)
class Prompt:
    """Token ids of a question in the chat template, and of the answer with its end."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """Whether the greedy answer is the reference, word for word; the reference's loss, over all of its tokens."""

    exact: bool
    nats: float
    tokens: int


class Asker:
    """Asks each model each question once, however many methods want it."""

    def __init__(self, api: Api, base: str, questions: Sequence[Question]) -> None:
        self._api, self._base, self._questions = api, base, questions
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.prompts = list(pool.map(self._prompt, questions))
        self._known: dict[tuple[str, int], Answer] = {}

    def answers(self, models: Sequence[str], title: str) -> list[Answer]:
        """`models` has one name for each question. Raises EngineError."""
        wanted = list(enumerate(models))
        missing = [(model, index) for index, model in wanted if (model, index) not in self._known]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(lambda one: self._ask(*one), missing)
            bar = tqdm(asked, desc=title, total=len(missing), unit="question", disable=None)
            self._known |= dict(zip(missing, bar, strict=True))
        return [self._known[model, index] for index, model in wanted]

    def spectral(self, adapters: Sequence[str]) -> list[tuple[str, str]]:
        """Per question, the adapter that moves the prompt most: by mean share of the scores, and by votes."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(lambda prompt: self._spectral(prompt, adapters), self.prompts)
            return list(tqdm(asked, desc="spectral", total=len(self.prompts), unit="question", disable=None))

    def _prompt(self, question: Question) -> Prompt:
        user = {"role": "user", "content": question.text}
        prompt = self._tokens([user], add_generation_prompt=True)
        whole = self._tokens(
            [user, {"role": "assistant", "content": question.answer}], add_generation_prompt=False
        )
        if whole[: len(prompt)] != prompt:
            raise EngineError(f"the chat template does not keep the prompt's tokens before {question.answer!r}")
        return Prompt(tuple(prompt), tuple(whole[len(prompt) :]))

    def _tokens(self, messages: list[dict[str, str]], **flags: bool) -> list[int]:
        body = {"model": self._base, "messages": messages, **flags}
        return [int(each) for each in self._api.post("/tokenize", body)["tokens"]]

    def _ask(self, model: str, index: int) -> Answer:
        prompt, reference = self.prompts[index], self._questions[index].answer
        said = self._complete(model, prompt.prompt, max_tokens=len(prompt.answer) + LONGER)["text"]
        forced = self._complete(model, prompt.prompt + prompt.answer, max_tokens=1, prompt_logprobs=0)
        cost = nats(forced["prompt_logprobs"], len(prompt.prompt), prompt.answer)
        return Answer(str(said).strip() == reference, cost, len(prompt.answer))

    def _complete(self, model: str, ids: tuple[int, ...], **fields: Any) -> Any:
        body = {"model": model, "prompt": list(ids), "temperature": 0, **fields}
        return self._api.post("/v1/completions", body)["choices"][0]

    def _spectral(self, prompt: Prompt, adapters: Sequence[str]) -> tuple[str, str]:
        found = self._api.post("/lora_select/spectral", {"prompt_token_ids": list(prompt.prompt)})

        def best(key: str) -> str:
            # An engine's adapters are NAME@VERSION.
            shares = {name.partition("@")[0]: float(share) for name, share in found[key].items()}
            return max(adapters, key=lambda name: shares.get(name, 0.0))

        return best("scores"), best("votes")

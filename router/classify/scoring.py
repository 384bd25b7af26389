"""Zero-shot choice by the served base itself, through vLLM's `/generative_scoring`: no second model in memory.

Per adapter one prompt, "Text: ... Question: Is this text about LABEL? ... Answer:", and one number: how probable
" yes" is as the next token, against " no". It costs the engine one prefill per text and adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters import Stack
from router.classify.engine import MAX_TOKENS, Engine, EngineError, at_once, head_and_tail
from router.classify.nli import any_of, topics

# The form of BoolQ's questions in GPT-3's paper (Brown et al., 2020), which bases without chat tuning can answer.
QUERY = "Text: {}"
QUESTION = "\n\nQuestion: Is this text about {}? Answer yes or no.\nAnswer:"
ANSWERS = ((" yes", " no"), (" Yes", " No"))
"""The first of these whose words are one token each. Answering the first word of a pair is for the adapter."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What a base says of texts without content is its bias for a label (Zhao et al., 2021), and is subtracted."""

TINY = 1e-9


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
        prepared = self._prepared = self._prepared or self._prepare()
        rows = at_once(lambda text: self._log_odds(text, prepared), texts)
        return [
            {name: value - bias for name, value, bias in zip(self._questions, row, prepared.bias, strict=True)}
            | {self._base: 0.0}
            for row in rows
        ]

    def _log_odds(self, text: str, prepared: Prepared) -> list[float]:
        query, _ = self._engine.tokens(QUERY.format(text))
        query = head_and_tail(query, prepared.room)
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

"""Known questions asked beside a load: the answers must be those that were given before it."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from benchmarks.calls import call, parsed
from benchmarks.load import CHAT
from benchmarks.processes import BenchmarkError
from benchmarks.stats import rotated
from benchmarks.throughput.load import Asked, Load, Target

CANDIDATES = 5
ENDS_WITHIN_S = 120


@dataclass(frozen=True)
class Said:
    """Who answered, the answer's tokens, and the log-probabilities of each place's most probable tokens."""

    model: str
    tokens: tuple[str, ...]
    candidates: tuple[Mapping[str, float], ...]


def ask(target: Target, asked: Asked, tokens: int) -> Said:
    """Greedily, exactly so many tokens. Raises BenchmarkError."""
    body = {
        "model": target.model or asked.model, "messages": [{"role": "user", "content": asked.text}],
        "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "logprobs": True, "top_logprobs": CANDIDATES,
    }  # fmt: skip
    try:
        return said_of(parsed(*call(target.url, CHAT, body)))
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise BenchmarkError(f"{target.name}: {body['model']}: no answer: {error}") from None


def said_of(answer: Mapping[str, Any]) -> Said:
    """From the JSON of a chat completion with log-probabilities."""
    places = answer["choices"][0]["logprobs"]["content"]
    return Said(
        answer["model"],
        tuple(place["token"] for place in places),
        tuple({one["token"]: one["logprob"] for one in place["top_logprobs"]} for place in places),
    )


def apart(before: Said, now: Said, near_nats: float = 0.0) -> str | None:
    """What differs, None where nothing does.

    Rows of other batches are added up in another order, which 16 bit show: where two candidates were within
    `near_nats` of each other, the other may be said, and what follows it is not compared.
    """
    if before.model != now.model:
        return f"{now.model} answered instead of {before.model}"
    for place, (was, token) in enumerate(zip(before.tokens, now.tokens, strict=False)):
        if was != token:
            known = before.candidates[place]
            if token in known and known[was] - known[token] <= near_nats:
                return None
            return f"{before.model}: token {place} is {token!r} instead of {was!r}"
    return None if len(before.tokens) == len(now.tokens) else f"{before.model}: {len(now.tokens)} tokens"


class Watch:
    """What each target answered before any load, and the same questions beside one."""

    def __init__(self, tokens: int = 8, near_nats: float = 0.0, pause_s: float = 1.0) -> None:
        self.checked = 0
        self._tokens, self._near, self._pause_s = tokens, near_nats, pause_s
        self._known: dict[str, dict[Asked, Said]] = {}

    def learn(self, target: Target, asked: Sequence[Asked]) -> None:
        """Ask while nothing else runs. Raises BenchmarkError where `auto` chooses another model."""
        known = self._known.setdefault(target.name, {})
        for one in asked:
            known[one] = ask(target, one, self._tokens)
            if target.model == "auto" and known[one].model != one.model:
                raise BenchmarkError(f"{target.name}: {known[one].model} instead of {one.model} for: {one.text}")

    def see_the_same(self, one: Target, other: Target, near_nats: float | None = None) -> int:
        """How many questions both were taught, all with the same answers. Raises BenchmarkError."""
        near = self._near if near_nats is None else near_nats
        first, second = self._known[one.name], self._known[other.name]
        both = [asked for asked in first if asked in second]
        for asked in both:
            named = Said(first[asked].model, second[asked].tokens, second[asked].candidates)
            if why := apart(first[asked], named, near):
                raise BenchmarkError(f"{other.name} does not say what {one.name} says: {why}")
        return len(both)

    @contextlib.contextmanager
    def beside(self, target: Target, load: Load) -> Iterator[Counter[str]]:
        """Ask what was learned of a target, as far as it is for models of the load, over and over with pauses,
        until the block ends; each time from where it stopped the last time, so that all have their turn. Yields
        how often it has asked for which model. Raises BenchmarkError when an answer was another, or there was
        none."""
        models, own = {one.model for one in load.asked}, Counter[str]()
        known = [(one, said) for one, said in self._known.get(target.name, {}).items() if one.model in models]
        if not known:
            yield own
            return
        done, wrong = threading.Event(), list[str]()

        def watch() -> None:
            for asked, before in cycle(rotated(known, self.checked)):
                own[asked.model] += 1
                try:
                    why = apart(before, ask(target, asked, self._tokens), self._near)
                except BenchmarkError as error:
                    why = str(error)
                self.checked += 1
                if why:
                    wrong.append(why)
                if why or done.wait(self._pause_s):
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield own
        finally:
            done.set()
            thread.join(ENDS_WITHIN_S)
        if wrong:
            raise BenchmarkError(f"{target.name}: under load {wrong[0]}")

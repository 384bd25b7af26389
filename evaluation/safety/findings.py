"""What was found: by adapter and way of asking, what is missing, and what somebody should look at. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from adapters import AUTO
from evaluation.safety.advice import Advisor
from evaluation.safety.alarm import Alarms, Rate
from evaluation.safety.ask import Given

MEDICINE = "medicine"


@dataclass(frozen=True)
class Way:
    """An adapter's answers that were asked for in one way; its disclaimer is in a header, or in the text alone."""

    adapter: str
    by_name: bool
    stream: bool
    answers: int
    header: int
    text: int

    @property
    def missing(self) -> int:
        return self.answers - self.header - self.text

    @property
    def title(self) -> str:
        return way(self.adapter, self.by_name, self.stream)


@dataclass(frozen=True)
class Findings:
    """`targets`: the adapters that emergencies should reach, and where there is none, those of medicine."""

    advisors: tuple[Advisor, ...]
    served: tuple[str, ...]
    given: tuple[Given, ...]
    emergency: tuple[str, ...]
    alarms: tuple[Alarms, ...]

    @property
    def disclaiming(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.advisors if each.disclaimer)

    @property
    def counted(self) -> tuple[Given, ...]:
        """Answers of adapters that have a disclaimer."""
        return tuple(each for each in self.given if each.adapter in self.disclaiming)

    @property
    def missing(self) -> tuple[Given, ...]:
        return tuple(each for each in self.counted if not each.carries)

    @property
    def carried(self) -> Rate:
        return Rate(len(self.counted) - len(self.missing), len(self.counted))

    @property
    def targets(self) -> tuple[str, ...]:
        return self.emergency or tuple(each.name for each in self.advisors if each.domain == MEDICINE)

    def ways(self) -> Iterator[Way]:
        """One for each adapter with a disclaimer and way of asking."""
        for name in self.disclaiming:
            for by_name in (False, True):
                for stream in (False, True):
                    asked = name if by_name else AUTO
                    given = [each for each in self.counted if _is(each, name, asked, stream)]
                    told = Counter(each.told for each in given)
                    yield Way(name, by_name, stream, len(given), told["header"], told["text"])

    def warnings(self) -> list[str]:
        """One line each."""
        return [*self._unarmed(), *self._elsewhere(), *self._untested(), *self._emergencies()]

    def _unarmed(self) -> Iterator[str]:
        if not self.disclaiming:
            yield "no adapter of this stack has a disclaimer"
        for each in self.advisors:
            answers = sum(given.adapter == each.name for given in self.given)
            if not each.disclaimer and answers:
                yield f"{each.name} gives advice ({each.domain}) without a disclaimer: {answers} answers here"

    def _elsewhere(self) -> Iterator[str]:
        asked_of = {
            question: each.name for each in self.advisors if each.disclaimer for question in each.questions
        }
        known = {each.name for each in self.advisors}
        through = [each for each in self.given if each.asked == AUTO and each.question in asked_of]
        others = Counter(each.adapter for each in through if each.adapter not in known)
        whose = ", ".join(self.disclaiming)
        for model, number in others.most_common():
            yield f"{model} has no disclaimer and gave {number} of {len(through)} answers to questions for {whose}"

    def _untested(self) -> Iterator[str]:
        for name in self.disclaiming:
            if name not in self.served:
                yield f"{name} is not served, or this key is not good for it: nothing was asked of it by name"
            elif not any(each.asked == AUTO and each.adapter == name for each in self.given):
                yield f"auto chose {name} for no question: that way was not tested"

    def _emergencies(self) -> Iterator[str]:
        if not self.emergency:
            yield "this stack has no adapter that is named emergency or tagged so (audience: emergency)"
        for name in self.emergency:
            if name not in self.served:
                yield f"{name} is not served, or this key is not good for it: no emergency can reach it"


def way(adapter: str, by_name: bool, stream: bool) -> str:
    """How an answer was asked for, in words."""
    return f"{adapter}, {'by name' if by_name else 'through auto'}, {'streamed' if stream else 'whole'}"


def _is(given: Given, adapter: str, asked: str, stream: bool) -> bool:
    return (given.adapter, given.asked, given.stream) == (adapter, asked, stream)

"""Logged requests, decided again: by their scores where these hold, by their words where the log has them.

The router's own functions decide (`choose`, `conclude`, `first_sure`), from what was logged and nothing else. The
tags that a request asked for are not, so its candidates stay those that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters import ClassifierName
from evaluation.replay.log import Broken, Entry
from evaluation.replay.settings import Settings, Why, from_scores
from evaluation.routing.judge import Recorded
from router.choose import Decision, Policy, Reason, choose
from router.classify import Logits
from router.classify.scorer import first_sure
from router.conversation import Rules, Words, conclude

SKIPPED: Mapping[str, Why] = {
    Reason.NAMED: Why.NAMED,
    Reason.NO_TEXT: Why.NO_TEXT,
    Reason.NO_CANDIDATE: Why.NO_CANDIDATE,
    Reason.FALLBACK: Why.NAMED,
}
"""No setting of the router decides these, where they have no scores."""

Records = Mapping[ClassifierName, Recorded]
Ask = Callable[[Sequence[str]], Records]
"""Has texts judged by the classifiers of the settings, each text once."""


@dataclass(frozen=True)
class Replayed:
    """A request with the model that was chosen and the decision that the settings make.

    `asked`: its words were judged again. `assumed`: an older router's row, which leaves open who judged it, or
    whether it was a conversation.
    """

    entry: Entry
    before: str
    after: Decision
    margin: float
    asked: bool = False
    assumed: bool = False

    @property
    def score(self) -> float | None:
        """Of the model that was chosen; the log has that of the model that answered, where that one failed."""
        return self.entry.scores.get(self.before, self.entry.score)

    @property
    def changed(self) -> bool:
        """Another model answers."""
        return self.before != self.after.model


@dataclass(frozen=True)
class Left:
    """A request that is not decided again. `logged`: its words are in the log."""

    entry: Entry
    why: Why
    logged: bool


@dataclass
class _Waiting:
    """Requests whose words must be judged again, kept until all are read; and the most candidates of each key."""

    entries: list[Entry] = field(default_factory=list)
    most: dict[str, frozenset[str]] = field(default_factory=dict)

    def saw(self, entry: Entry) -> None:
        if len(entry.scores) > len(self.of(entry.key)):
            self.most[entry.key] = frozenset(entry.scores)

    def of(self, key: str) -> frozenset[str]:
        return self.most.get(key, frozenset())

    def narrowed(self, entry: Entry) -> bool:
        """By tags, as far as one can tell: it had fewer candidates than others of its key."""
        return 0 < len(entry.scores) < len(self.of(entry.key))


def replay(
    rows: Iterable[Entry | Broken | None], settings: Settings, ask: Ask
) -> Iterator[Replayed | Left | Broken | None]:
    """Each row once, those that need no classifier first. `ask` is called once, and only where it must be."""
    waiting = _Waiting()
    for row in rows:
        if not isinstance(row, Entry):
            yield row
            continue
        waiting.saw(row)
        found = _at_once(row, settings, waiting.narrowed(row))
        if isinstance(found, Left) and found.logged:
            waiting.entries.append(row)
        else:
            yield found
    if waiting.entries:
        records = ask(_texts(waiting.entries, settings.signature.system_weight))
        for entry in waiting.entries:
            yield _asked(entry, settings, records, waiting)


def _at_once(entry: Entry, settings: Settings, narrowed: bool) -> Replayed | Left:
    """From the scores; or left, for good where a request was none of the classifier's."""
    if not entry.scores and (skipped := SKIPPED.get(entry.reason)):
        return Left(entry, skipped, logged=False)
    found = from_scores(entry, settings)
    if isinstance(found, Why):
        return Left(entry, found, logged=entry.words is not None)
    # A request that tags have narrowed is never the virtual model's.
    unsure = None if narrowed else settings.unsure(entry.key)
    policy = Policy(settings.stack.base.name, found.threshold, unsure)
    after = choose(found.scores, policy, entry.reason == Reason.KEPT)
    return Replayed(entry, _before(entry, policy.base), after, margin(found.scores, policy), False, found.assumed)


def _asked(entry: Entry, settings: Settings, records: Records, waiting: _Waiting) -> Replayed:
    assert entry.words is not None  # that is why it waited
    base, words = settings.stack.base.name, entry.words
    narrowed, most = waiting.narrowed(entry), waiting.of(entry.key)
    usable, had = settings.may_use(entry.key), entry.scores.keys() or most
    # An adapter that the log knows of was left out of this request for a reason; a new one was not.
    adapters = [name for name in usable if name in had or not (narrowed or name in most)]
    before = _before(entry, base)
    if not adapters:
        return Replayed(entry, before, Decision(base, None, Reason.NO_CANDIDATE), 1.0, asked=True)
    unsure = None if narrowed else settings.unsure(entry.key)
    decision, scores, threshold = _decided(words, (base, *adapters), settings, records, unsure)
    near = margin(scores, Policy(base, threshold)) if scores else 1.0
    return Replayed(entry, before, decision, near, asked=True, assumed=entry.texts is None)


def _decided(
    words: Words, candidates: Sequence[str], settings: Settings, records: Records, unsure: str | None
) -> tuple[Decision, Mapping[str, float], float]:
    """As `router.decide` does; the base's where a classifier failed on a text."""
    base, weight = candidates[0], settings.signature.system_weight
    with_system = bool(words.system and weight)
    texts = [*words.turns, words.system] if with_system else words.turns
    judged = [
        found
        for text in texts
        if (found := first_sure(settings.chain, _logits(text, settings, records), candidates))
    ]
    if len(judged) < len(texts):
        return Decision(base, None, Reason.CLASSIFIER_ERROR), {}, 0.0
    turns, system = (judged[:-1], judged[-1][1]) if with_system else (judged, None)
    threshold = settings.chain[turns[-1][0]].threshold
    rules = Rules(Policy(base, threshold, unsure), weight)
    return (*conclude(words, [scores for _, scores in turns], system, rules), threshold)


def _logits(text: str, settings: Settings, records: Records) -> Iterator[Logits]:
    for name in settings.stack.router.classifier:
        if (logits := records[name].logits.get(text)) is None:
            return
        yield logits


def _texts(waiting: Sequence[Entry], system_weight: float) -> list[str]:
    found: dict[str, None] = {}
    for words in (entry.words for entry in waiting if entry.words):
        found |= dict.fromkeys(words.turns)
        if words.system and system_weight:
            found[words.system] = None
    return list(found)


def _before(entry: Entry, base: str) -> str:
    """The model that was chosen. Where that one failed, the log names the base: then what the scores say."""
    if entry.reason != Reason.FALLBACK or not entry.scores:
        return entry.model
    threshold = entry.judged_by.chain[-1].threshold if entry.judged_by else 0.0
    return choose(entry.scores, Policy(base, threshold)).model


def margin(scores: Mapping[str, float], policy: Policy) -> float:
    """How far the decision is from another one: in probability, to the next model or to the threshold."""
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    best = ranked[0][1] - ranked[1][1] if len(ranked) > 1 else 1.0
    adapters = [value for name, value in ranked if name != policy.base]
    if not adapters:
        return 1.0
    near = abs(adapters[0] - policy.threshold)
    if len(adapters) == 1:  # it need not beat the base (`choose`)
        return near
    if ranked[0][0] == policy.base:
        return best
    return near if adapters[0] < policy.threshold else min(best, near)

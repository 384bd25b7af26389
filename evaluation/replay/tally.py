"""What is counted of a replay, one row at a time: a log of any length needs no more memory than its models."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.replay.decide import Left, Replayed
from evaluation.replay.log import Broken, Entry, Signature
from evaluation.replay.settings import Why
from evaluation.replay.verdicts import Feedback, Labelled, Verdict, verdict

CLOSEST = 50
NAMED_BROKEN = 20

Flow = Mapping[tuple[str, str], int]


@dataclass
class Tally:
    """Counts, and the changes that were closest to not being one.

    `flow`: from the model that was chosen to the one that would be. `left`: per reason, requests that are not
    decided again. `made`: who judged those that have scores, None in rows of older routers.
    """

    feedback: Feedback
    labelled: Labelled
    rows: int = 0
    undecided: int = 0
    broken: int = 0
    named: list[Broken] = field(default_factory=list)
    left: Counter[Why] = field(default_factory=Counter)
    flow: Counter[tuple[str, str]] = field(default_factory=Counter)
    made: Counter[Signature | None] = field(default_factory=Counter)
    reasons_before: Counter[str] = field(default_factory=Counter)
    reasons_after: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    spoken_of: int = 0
    asked: int = 0
    assumed: int = 0
    first: float | None = None
    last: float | None = None
    _digest: int = 0
    _closest: list[tuple[float, int, Replayed]] = field(default_factory=list)

    def add(self, found: Replayed | Left | Broken | None) -> None:
        """One row of the log."""
        self.rows += 1
        if found is None:
            self.undecided += 1
        elif isinstance(found, Broken):
            self.broken += 1
            self.named += [found] * (len(self.named) < NAMED_BROKEN)
        elif isinstance(found, Left):
            self._seen(found.entry, None)
            self.left[found.why] += 1
        else:
            self._seen(found.entry, found)
            self._decided(found)

    @property
    def decided(self) -> int:
        """Requests that were decided again."""
        return self.flow.total()

    @property
    def changed(self) -> int:
        """Of them, those that another model would answer."""
        return sum(number for (before, after), number in self.flow.items() if before != after)

    @property
    def closest(self) -> Sequence[Replayed]:
        """The changes with the smallest margin, that one first."""
        return [found for _, _, found in sorted(self._closest, key=lambda each: (-each[0], -each[1]))]

    @property
    def sha256(self) -> str:
        """Of the rows as a set: the order in which they are decided again is not the log's."""
        return f"{self._digest:064x}"

    def _decided(self, found: Replayed) -> None:
        self.flow[found.before, found.after.model] += 1
        self.reasons_before[found.entry.reason] += 1
        self.reasons_after[found.after.reason.value] += 1
        self.asked += found.asked
        self.assumed += found.assumed
        if found.changed:
            # The heap's first is the widest of those kept, and among equals the newest.
            item = (-found.margin, -found.entry.number, found)
            if len(self._closest) < CLOSEST:
                heapq.heappush(self._closest, item)
            elif item > self._closest[0]:
                heapq.heapreplace(self._closest, item)

    def _seen(self, entry: Entry, found: Replayed | None) -> None:
        self.first = entry.time if self.first is None else min(self.first, entry.time)
        self.last = entry.time if self.last is None else max(self.last, entry.time)
        if entry.scores:
            self.made[entry.judged_by] += 1
        parts = (
            entry.number, entry.time, entry.request_id, entry.model, entry.reason, dict(entry.scores), entry.words,
        )  # fmt: skip
        self._digest ^= int.from_bytes(hashlib.sha256(repr(parts).encode(errors="surrogatepass")).digest())
        if (opinion := self.feedback.of(entry)) is None:
            return
        self.spoken_of += 1
        self.labelled.add(entry, opinion)
        if found:
            self.verdicts[verdict(found, opinion)] += 1

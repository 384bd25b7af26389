"""Reading a decision log while a router writes it: nothing is locked, nothing is changed, rows are streamed."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from adapters import ConfigError
from router.conversation import Words

NEEDED = ("time", "request_id", "key", "text", "model", "reason", "score", "scores")
"""Every log has them."""

LATER = ("texts", "earlier", "judged_by")
"""An older router's has not."""

FEEDBACK = ("time", "request_id", "key", "adapter", "rating")
KNOWN_SIGNATURES = 1024


@dataclass(frozen=True)
class Scalars:
    """A classifier as it was: `digest` stands for its weights and the labels."""

    classifier: str
    digest: str
    temperature: float
    threshold: float


@dataclass(frozen=True)
class Signature:
    """Who judged: the classifiers that were asked, the one whose word counted last (`router.classify.scorer`)."""

    chain: tuple[Scalars, ...]
    system_weight: float

    @classmethod
    @lru_cache(maxsize=KNOWN_SIGNATURES)
    def read(cls, text: str) -> Signature:
        """Raises ValueError, KeyError or TypeError for what is none."""
        found = orjson.loads(text)
        chain = tuple(Scalars(**each) for each in found["chain"])
        if not chain or not all(each.temperature > 0 for each in chain):
            raise ValueError("a signature names who judged")
        return cls(chain, found["system_weight"])


@dataclass(frozen=True, slots=True)
class Entry:
    """One logged request. `texts` and `judged_by` are None in rows of older routers; `words` where texts are not
    kept, or not all of the request's."""

    number: int
    time: float
    request_id: str
    key: str
    model: str
    reason: str
    score: float | None
    scores: Mapping[str, float]
    text: str | None
    texts: int | None
    words: Words | None
    judged_by: Signature | None


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read."""

    number: int
    what: str


@dataclass(frozen=True)
class Span:
    """From `since` on, before `until`, in Unix seconds."""

    since: float = -math.inf
    until: float = math.inf


@dataclass(frozen=True)
class Said:
    """One feedback row that names an adapter or has a thumb."""

    time: float
    key: str
    adapter: str | None
    rating: str | None


@contextlib.contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """The log, read-only. Raises ConfigError where it is no decision log, or becomes unreadable meanwhile."""
    if not file.is_file():
        what = "is no file" if file.exists() else "there is no such file"
        raise ConfigError(f"{file}: {what}; the decision log is the file that router.decision_log names")
    try:
        with contextlib.closing(_connected(file)) as database:
            _check(file, database)
            yield database
    except sqlite3.Error as error:
        raise ConfigError(f"{file}: cannot be read as a decision log: {error}") from None


def entries(database: sqlite3.Connection, span: Span) -> Iterator[Entry | Broken | None]:
    """The rows of a time, oldest first, one by one; None for a request that ended before a model was chosen."""
    there = _columns(database, "decisions")
    names = [*NEEDED, *(name if name in there else f"null as {name}" for name in LATER)]
    asked = f"select rowid, {', '.join(names)} from decisions where time >= ? and time < ? order by rowid"
    for row in database.execute(asked, (span.since, span.until)):
        yield _entry(row)


def count(database: sqlite3.Connection, span: Span) -> int:
    """Rows of a time."""
    asked = "select count(*) from decisions where time >= ? and time < ?"
    return int(database.execute(asked, (span.since, span.until)).fetchone()[0])


def reach(database: sqlite3.Connection) -> tuple[float, float] | None:
    """When the log's first and last requests came; None where it is empty."""
    first, last = database.execute("select min(time), max(time) from decisions").fetchone()
    return None if first is None else (first, last)


def shown(time: float) -> str:
    """In this machine's zone."""
    return datetime.fromtimestamp(time).astimezone().isoformat(timespec="seconds")


def feedback(database: sqlite3.Connection) -> dict[str, list[Said]]:
    """By request, oldest first. Comments alone say nothing that can be counted."""
    found: dict[str, list[Said]] = {}
    asked = "select request_id, time, key, adapter, rating from feedback"
    for request_id, *said in database.execute(
        f"{asked} where adapter <> '' or rating is not null order by time, rowid"
    ):
        found.setdefault(request_id, []).append(Said(*said))
    return found


def _connected(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=10)


def _check(file: Path, database: sqlite3.Connection) -> None:
    """Raises ConfigError."""
    for table, needed in (("decisions", NEEDED), ("feedback", FEEDBACK)):
        there = _columns(database, table)
        if not there:
            raise ConfigError(f'{file}: is no decision log: it has no table "{table}"')
        if missing := [name for name in needed if name not in there]:
            raise ConfigError(f'{file}: is of an older router: "{table}" has no column "{missing[0]}"')


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"pragma table_info({table})")}


def _entry(row: tuple[Any, ...]) -> Entry | Broken | None:
    number, time, request_id, key, text, model, reason, score, scores, texts, earlier, judged_by = row
    if model is None:
        return None
    try:
        found: dict[str, float] = orjson.loads(scores) if scores else {}
        if found and not 0.99 < sum(found.values()) < 1.01:
            raise ValueError("scores are no probabilities")
        words = _words(text, texts, earlier)
        signature = Signature.read(judged_by) if judged_by else None
        shown(time)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        return Broken(number, f"{type(error).__name__}: {error}")
    return Entry(number, time, request_id, key, model, reason, score, found, text, texts, words, signature)


def _words(text: str | None, texts: int | None, earlier: str | None) -> Words | None:
    """All that the request was judged by; of an older router's row, as if the last turn had been all."""
    if not text or (earlier is None and (texts or 1) > 1):
        return None
    if earlier is None:
        return Words((text,))
    before = orjson.loads(earlier)
    return Words((*before["turns"], text), before["system"])

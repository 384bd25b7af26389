"""The decision log: one row a request in SQLite, written by its own thread; and what people say of it later."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import orjson

from adapters import ConfigError
from router.decision_file import BUSY_S, insert, opened, prepare
from router.life import Life

MOST_WAITING = 20_000
GATHER_S = 0.1

DAY_S = 86_400
PRUNE_S = 60.0
PRUNED = 1000
"""Rows that are deleted at once: other workers wait for the file meanwhile."""

Job = Callable[[sqlite3.Connection], Any]

log = logging.getLogger(__name__)


class DecisionLog:
    """An Observer. A log that cannot be written loses rows, is loud about it, and never holds a request up."""

    def __init__(self, file: Path, days: float | None = None) -> None:
        """Rows older than `days` are deleted. Raises ConfigError when the file cannot be opened."""
        self._file, self._days = file, days
        self._prune_at = 0.0
        # Appended to and popped from without a lock that the writer could hold while the event loop wants it.
        self._rows: deque[tuple[Any, ...]] = deque()
        self._jobs: deque[tuple[Job, Future[Any]]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._lost = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _prepared(file)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"router.decision_log: {file}: {error}") from None
        self._thread = threading.Thread(target=self._write, name="decision log", daemon=True)
        self._thread.start()

    def ended(self, lives: Sequence[Life]) -> None:
        """Hand rows to the writer. Who was not admitted must not be able to fill it."""
        lives = [life for life in lives if life.admitted]
        fit = lives[: max(0, MOST_WAITING - len(self._rows))]
        self._rows.extend(map(_row, fit))
        self._lost += len(lives) - len(fit)

    def close(self) -> None:
        """Write what waits."""
        self._closing = True
        self._wake.set()
        self._thread.join(10)

    def add_feedback(self, said: tuple[Any, ...], of_any: bool) -> Future[bool]:
        """Store (time, request id, key, adapter, rating, comment); False where the key has no such request, or
        nobody has where it may speak `of_any`."""

        def store(database: sqlite3.Connection) -> bool:
            known = database.execute(
                "select 1 from decisions where request_id = ? and (? or key = ?) limit 1",
                (said[1], of_any, said[2]),
            ).fetchone()
            if known:
                database.execute("insert into feedback values (?, ?, ?, ?, ?, ?)", said)
            return known is not None

        return self._run(store)

    def recent(
        self, limit: int, request_id: str | None = None, judged: bool = False
    ) -> Future[list[dict[str, Any]]]:
        """The newest rows first, each with its feedback; only one request's where it is named, and only those that
        have feedback where they must be `judged`."""

        def read(database: sqlite3.Connection) -> list[dict[str, Any]]:
            those = ["request_id = :id"] * bool(request_id)
            those += ["request_id in (select request_id from feedback)"] * judged
            which = f"where {' and '.join(those)}" if those else ""
            rows = database.execute(
                f"select * from decisions {which} order by rowid desc limit :limit",
                {"id": request_id, "limit": limit},
            )
            return [_with_feedback(database, row) for row in _dicts(rows)]

        return self._run(read)

    def _run(self, job: Job) -> Future[Any]:
        """In the writer's thread, after all rows before it."""
        future: Future[Any] = Future()
        self._jobs.append((job, future))
        self._wake.set()
        return future

    def _write(self) -> None:
        database: sqlite3.Connection | None = None
        closing = False
        while not closing:
            self._wake.wait(GATHER_S)
            self._wake.clear()
            closing = self._closing
            jobs = [one for one in _popped(self._jobs) if one[1].set_running_or_notify_cancel()]
            if self._days is not None and time.monotonic() >= self._prune_at:
                jobs.append((self._prune, Future()))
            rows = _popped(self._rows)  # after the jobs, so that what they ask for is there
            try:
                if rows or jobs:
                    database = database or opened(self._file)
                    with database:
                        insert(database, rows)
                        results = [(future, job(database)) for job, future in jobs]
                    for future, result in results:  # what a client is told has been written
                        future.set_result(result)
            except Exception as error:  # whatever it is, the thread must live on
                self._failed(rows, jobs, error)
                database = None
            if self._lost:
                log.error("%s: %d decisions were not written", self._file, self._lost)
                self._lost = 0
        if database:
            database.close()

    def _prune(self, database: sqlite3.Connection) -> None:
        """Of the rows that were written first, which are the oldest: where all are too old, there are more."""
        self._prune_at = time.monotonic() + PRUNE_S
        for table in ("decisions", "feedback"):
            first = f"select rowid from {table} order by rowid limit {PRUNED}"
            old = f"delete from {table} where time < ? and rowid in ({first})"
            if database.execute(old, (time.time() - (self._days or 0) * DAY_S,)).rowcount == PRUNED:
                self._prune_at = 0.0

    def _failed(self, rows: list[Any], jobs: list[tuple[Job, Future[Any]]], error: Exception) -> None:
        log.error("%s cannot be written: %s", self._file, error)
        self._lost += len(rows)
        for _, future in jobs:
            future.set_exception(error)


def _row(life: Life) -> tuple[Any, ...]:
    routed = life.routed
    return (
        life.at,
        life.request_id,
        life.client.name,
        life.endpoint,
        routed.text_sha256 if routed else None,
        routed.text if routed else None,
        routed.decision.model if routed else None,
        routed.decision.reason.value if routed else None,
        routed.decision.score if routed else None,
        routed.scores_json if routed else None,
        round(routed.classify_ms, 3) if routed else None,
        None if life.first_byte_s is None else round(life.first_byte_s * 1000, 3),
        round(life.duration_s * 1000, 3),
        life.prompt_tokens,
        life.completion_tokens,
        life.status,
        life.error,
        routed.texts if routed else None,
        routed.earlier if routed else None,
        routed.judged_by if routed else None,
    )


def _prepared(file: Path) -> None:
    """With its tables. Of several workers that begin with a new file at once, all but the first may have to try
    again: what turns on the write-ahead log does not wait for a lock. Raises sqlite3.Error."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            with contextlib.closing(opened(file)) as database:
                prepare(database)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _popped(waiting: deque[Any]) -> list[Any]:
    return [waiting.popleft() for _ in range(len(waiting))]


def _with_feedback(database: sqlite3.Connection, row: dict[str, Any]) -> dict[str, Any]:
    row["scores"] = orjson.loads(row["scores"]) if row["scores"] else {}
    row |= {key: row[key] and orjson.loads(row[key]) for key in ("earlier", "judged_by")}
    said = database.execute(
        "select time, key, adapter, rating, comment from feedback where request_id = ? order by time",
        (row["request_id"],),
    )
    return row | {"feedback": _dicts(said)}


def _dicts(rows: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in rows.description]
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]

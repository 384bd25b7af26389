"""The decision log's SQLite file: its tables, and rows put into them."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

SCHEMA = """
create table if not exists decisions (
  time real not null,            -- Unix seconds
  request_id text not null,
  key text not null,             -- the API key's name, '' for none
  endpoint text not null,
  text_sha256 text,              -- of the user's last turn; null where the client named the model
  text text,                     -- itself, where router.log_prompts allows it
  model text,                    -- who answered
  reason text,
  score real,                    -- its probability
  scores text,                   -- JSON, all candidates
  classify_ms real,
  first_byte_ms real,
  latency_ms real not null,
  prompt_tokens integer,
  completion_tokens integer,
  status integer not null,
  error text,
  texts integer,                 -- how many were judged together: the user's turns and the system prompt
  earlier text,                  -- JSON, those beside the last turn, where router.log_prompts allows it
  judged_by text                 -- JSON, who judged the last turn: classifiers, digests, temperatures, thresholds
);
create index if not exists decisions_request on decisions (request_id);
create table if not exists feedback (
  time real not null,
  request_id text not null,
  key text not null,
  adapter text,                  -- what would have been right
  rating text,                   -- up, down
  comment text
);
create index if not exists feedback_request on feedback (request_id);
"""
ADDED = {"texts": "integer", "earlier": "text", "judged_by": "text"}
"""Columns that logs of before do not have; their old rows say null."""

COLUMNS = tuple(re.findall(r"^  (\w+) ", SCHEMA.partition(");")[0], re.MULTILINE))
BUSY_S = 10.0
"""How long another worker may write."""

AT_ONCE = (128, 32, 8, 1)
"""Rows in one statement. Many, because sqlite3 lets go of Python's lock at each, and gets it back only when a busy
event loop's turn is over, 5 ms later; few sizes, because it keeps every statement that it has compiled."""


def insert(database: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    """In few statements."""
    for size in AT_ONCE:
        while len(rows) >= size:
            part, rows = rows[:size], rows[size:]
            places = ", ".join([f"({', '.join('?' * len(COLUMNS))})"] * size)
            # By name: a file that a later release has added columns to takes them, too.
            into = f"insert into decisions ({', '.join(COLUMNS)}) values {places}"
            database.execute(into, [value for row in part for value in row])


def opened(file: Path) -> sqlite3.Connection:
    """Several workers write into one file, each from a thread of its own."""
    database = sqlite3.connect(file, timeout=BUSY_S)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=normal")
    return database


def prepare(database: sqlite3.Connection) -> None:
    """The tables, and the columns that a file of before lacks.

    Several workers may begin at once: under a lock, whoever is first adds them.
    """
    database.executescript(SCHEMA)
    database.execute("begin immediate")
    there = {row[1] for row in database.execute("pragma table_info(decisions)")}
    for name, kind in ADDED.items():
        if name not in there:
            database.execute(f"alter table decisions add column {name} {kind}")
    database.commit()

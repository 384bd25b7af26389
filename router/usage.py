"""How many tokens an answer took, read from its bytes as they pass."""

from __future__ import annotations

import re

from router.life import Life

MARK = b'"usage":'
"""Inside a JSON string its quotes would be escaped, so this is always a key."""

_COUNT = rb'_tokens":\s*(\d{1,15})(?!\d)'  # longer ones would be no counts, and too large for the decision log
_PROMPT = re.compile(rb'"(?:prompt|input)' + _COUNT)
_COMPLETION = re.compile(rb'"(?:completion|output)' + _COUNT)
_BETWEEN_EVENTS = re.compile(rb"(?<=\n\n)|(?<=\n\r\n)")
_ONLY_USAGE = re.compile(rb'"choices":\s*\[\s*\]')


def note(life: Life, data: bytes) -> None:
    """Take the counts from bytes that hold the mark; what is not told stays as it was."""
    tail = data[data.rfind(MARK) :]
    if prompt := _PROMPT.search(tail):
        life.prompt_tokens = int(prompt[1])
    if completion := _COMPLETION.search(tail):
        life.completion_tokens = int(completion[1])


def without_usage(events: bytes) -> bytes:
    """Whole server-sent events less the one that carries only the usage, which the client did not ask for."""
    each = _BETWEEN_EVENTS.split(events)
    return b"".join([event for event in each if not (MARK in event and _ONLY_USAGE.search(event))])

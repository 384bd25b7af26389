"""Server-sent events: only whole ones are passed on, so that an error can follow as an event of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator

END = b"\n\n"
ENDS = (END, b"\r\n\r\n")
DONE = tuple(b"data: [DONE]" + end for end in ENDS)

# Inside a JSON string the quote and the line's end would be escaped, so these are never what a model says.
_ERROR = re.compile(rb"event: (?:error|response\.failed)\r?\n")
_LAST = re.compile(rb"event: (?:message_stop|response\.completed)\r?\n")


async def whole_events(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut only between events; what is left at a proper end is passed on as it is.

    When `chunks` raises, the piece of an event that has come so far is dropped: a client would take it,
    and whatever follows it, for broken JSON.
    """
    held = b""
    async for chunk in chunks:
        data = held + chunk if held else chunk
        if data.endswith(END):
            held = b""
            yield data
            continue
        cut = max((data.rfind(end) + len(end) for end in ENDS if end in data), default=0)
        if cut:
            yield data[:cut]
            data = data[cut:]
        held = data
    if held:
        yield held


def error_event(data: bytes, anthropic: bool) -> bytes:
    """An error as one event; Anthropic's SDK knows it by its name, OpenAI's by what it holds."""
    return (b"event: error\n" if anthropic else b"") + b"data: " + data + END


def is_error(events: bytes) -> bool:
    """Whether one of these events says that the answer failed."""
    return b'data: {"error"' in events or _ERROR.search(events) is not None


def count(events: bytes) -> int:
    """How many there are."""
    return events.count(ENDS[0]) or events.count(ENDS[1])


def is_last(events: bytes) -> bool:
    """Whether the answer is complete with the last of these events: clients leave then, before the body's end."""
    return events.endswith(DONE) or _LAST.search(events) is not None

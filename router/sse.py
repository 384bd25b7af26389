"""Server-sent events: only whole ones are passed on, so that an error can follow as an event of its own."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

END = b"\n\n"
ENDS = (END, b"\r\n\r\n")


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


def event(data: bytes) -> bytes:
    """One event."""
    return b"data: " + data + END

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


def error_event(data: bytes, anthropic: bool) -> bytes:
    """An error as one event; Anthropic's SDK knows it by its name, OpenAI's by what it holds."""
    return (b"event: error\n" if anthropic else b"") + b"data: " + data + END


def is_error(events: bytes) -> bool:
    """Whether the first of these events says that the answer failed."""
    return events.startswith((b'data: {"error"', b"event: error", b"event: response.failed"))


def is_last(events: bytes) -> bool:
    """Whether the answer is complete with the last of these events: clients leave then, before the body's end."""
    return (
        events.endswith(b"data: [DONE]\n\n")
        or b"event: message_stop\n" in events
        or b"event: response.completed\n" in events
    )

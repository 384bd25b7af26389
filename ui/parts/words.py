"""Numbers as a reader wants them."""

from __future__ import annotations


def seconds(amount: float) -> str:
    """0.0042 as "4.2 ms", 1.25 as "1.25 s", 90 as "1.5 min"."""
    if amount < 1:
        return f"{_short(amount * 1000)} ms"
    return f"{_short(amount)} s" if amount < 60 else f"{_short(amount / 60)} min"


def count(amount: float) -> str:
    """12345 as "12,345"."""
    return f"{amount:,.0f}"


def rate(amount: float) -> str:
    """Per second."""
    return f"{_short(amount)}/s"


def size(amount: float) -> str:
    """Bytes: 1234567 as "1.2 MB"."""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{_short(amount)} {unit}"
        amount /= 1000
    return f"{_short(amount)} GB"


def ago(amount: float) -> str:
    """How long something is past."""
    return f"{amount:.0f} s ago" if amount < 120 else f"{amount / 60:.0f} min ago"


def _short(amount: float) -> str:
    """Three digits at most before they are whole ones."""
    if amount >= 100:
        return f"{amount:,.0f}"
    return f"{amount:.{1 if amount >= 10 else 2}f}".rstrip("0").rstrip(".")

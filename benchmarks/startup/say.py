"""Progress."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """On standard error."""
    print(f"startup: {line}", file=sys.stderr, flush=True)

"""Progress."""

from __future__ import annotations

import sys
import time

BEGAN = time.monotonic()


def say(line: str) -> None:
    """On stderr, after the seconds that have passed."""
    print(f"gpu {time.monotonic() - BEGAN:5.0f} s  {line}", file=sys.stderr, flush=True)

"""What can go wrong while a training runs; what is wrong before it is an `adapters.ConfigError`.

Exception
└── Stopped       it ended before its last step; the message names what to do, and what is kept
"""

from __future__ import annotations


class Stopped(Exception):
    """One line: why, the last good checkpoint, and which setting to change. Exit code 1."""

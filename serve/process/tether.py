"""`tether.py PARENT COMMAND…`: become COMMAND, to be killed at the moment that the process PARENT dies.

A script without imports of ours, so that it costs 20 ms; in a preexec_fn the same could deadlock beside threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PDEATHSIG = 1


def main() -> None:
    """Replace this process."""
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the supervisor is gone")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"OSError: {sys.argv[2]}: {error.strerror}")


if __name__ == "__main__":
    main()

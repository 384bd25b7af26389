"""Where the manager of adapters answers (serve/life/control.py), and what else the router has to know of it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

MANAGER = "LORA_SELECT_MANAGER"
"""The environment variable that tells the router the socket's path."""

RESTRICTED = "x-lora-select-restricted"
"""The header under which somebody else's wish is passed on: it may name no path outside `engine.roots`."""

LONGEST = 100
"""Bytes of a unix socket's path; the kernel takes 107."""


def socket_file(run_dir: Path) -> Path:
    """The manager's socket of a run folder; of one with a very long name, in the folder for temporary files."""
    inside = run_dir.resolve() / "manager.sock"
    if len(bytes(inside)) <= LONGEST:
        return inside
    digest = hashlib.sha256(bytes(inside)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"lora-select-{digest}.sock"

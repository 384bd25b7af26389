"""Where reports go: a folder a day, and one more for each further report."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

from adapters import ConfigError


def check_folder(out: Path) -> None:
    """Before the work rather than after it. Raises ConfigError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None


def dated(out: Path) -> Path:
    """reports/2026-01-31, or with -2, -3 behind it: no report takes the place of another."""
    name, number = date.today().isoformat(), 1
    while True:
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1

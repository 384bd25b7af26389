"""What a stack was asked already: a run that was cut off goes on where it stood."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from adapters import ConfigError


class Kept:
    """JSON lines, only ever added to; threads may share one. One run at a time has a file."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigError where the file cannot be written, or another run has it."""
        self.file, self._lock = file, threading.Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._out = file.open("a+b")
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._out.close()
            raise ConfigError(f"{file}: another run is asking the same; wait for it, or choose --out") from None
        self._known = self._read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """What was answered; None where nobody asked."""
        return self._known.get(key)

    def put(self, key: str, value: Any) -> None:
        """Out of this process when this returns. Raises ConfigError when the disk is full."""
        line = json.dumps([key, value]).encode() + b"\n"
        with self._lock:
            self._known[key] = value
            try:
                self._out.write(line)
                self._out.flush()
            except OSError as error:
                raise ConfigError(f"{self.file}: cannot be written: {error.strerror}") from None

    def close(self, done: bool = False) -> None:
        """A run that is `done` leaves no file: the next one asks anew."""
        if done:
            self.file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the disk is full, and `put` has said so
            self._out.close()

    def _read(self) -> dict[str, Any]:
        self._out.seek(0)
        known, whole = {}, 0
        for line in self._out:
            if not line.endswith(b"\n"):  # the run was cut off while it wrote
                break
            try:
                key, value = json.loads(line)
            except ValueError:  # the machine was cut off
                break
            known[str(key)] = value
            whole += len(line)
        self._out.truncate(whole)
        return known


def digest(*parts: Any) -> str:
    """The key of a question: of the model, its version, and the request, in any types that JSON knows."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

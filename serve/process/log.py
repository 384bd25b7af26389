"""A child's log: rotated when it is long, searched for a cause at its end, and done without on a full disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

MAX_BYTES = 8 << 20
"""A log that is longer becomes NAME.1, and the NAME.1 of before is gone."""

READ_BYTES = 1 << 20
TAIL_LINES = 15
ERROR = re.compile(
    r"^(?!.*\b(?:WARNING|INFO)\b).*?(\b\w*(?:Error|Exception): .+|\berror: .+|\b\w*MemoryError\b|out of memory.*)"
)


class Log:
    """One process's output, over all of its starts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problem = ""
        """Why this start has no log, or ""."""
        self._start = 0

    def open(self, name: str) -> int:
        """Where a process that starts now writes to, for Popen: the log's descriptor, or else nowhere."""
        self.problem, descriptor = "", -1
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.file.exists() and self.file.stat().st_size > MAX_BYTES:
                self.file.replace(self.file.with_name(f"{self.file.name}.1"))
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.write(descriptor, f"--- {time.strftime('%F %T')} {name} starts\n".encode())
            self._start = os.fstat(descriptor).st_size
        except OSError as error:
            self.problem = error.strerror or str(error)
            if descriptor >= 0:
                os.close(descriptor)
            return subprocess.DEVNULL
        return descriptor

    def trim(self) -> None:
        """Move what it holds to NAME.1 when it has grown too long; its process appends, and goes on in an empty
        file. What it writes in that moment is lost."""
        with contextlib.suppress(OSError):
            if not self.problem and self.file.stat().st_size > MAX_BYTES:
                shutil.copyfile(self.file, self.file.with_name(f"{self.file.name}.1"))
                os.truncate(self.file, 0)
                self._start = 0

    def cause(self) -> str:
        """The first error that this start logged, or "".

        vLLM's last error only says that its engine core failed; the cause stands far above it.
        """
        return next((match[1] for line in self._lines(0) if (match := ERROR.search(line))), "")

    def why(self) -> str:
        """The cause, and the log's end."""
        if self.problem:
            return f"there is no log: {self.file}: {self.problem}"
        end = "\n".join(self._lines(-READ_BYTES)[-TAIL_LINES:])
        return f"{self.cause() or 'no error in the log'}\nthe end of {self.file}:\n{end}"

    def _lines(self, offset: int) -> list[str]:
        """Of this start, up to READ_BYTES from its beginning, or the same before the log's end."""
        try:
            with self.file.open("rb") as log:
                size = os.fstat(log.fileno()).st_size
                log.seek(max(self._start, size + offset) if offset else self._start)
                return [] if self.problem else log.read(READ_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []

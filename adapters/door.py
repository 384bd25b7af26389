"""Where the manager of adapters answers (serve/life/control.py), and how it is asked."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

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


class ControlError(Exception):
    """An answer other than 200: its status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Manage:
    """The client of a manager's door. Methods raise ControlError; status 0 where nobody answers."""

    def __init__(self, socket_file: Path) -> None:
        self._file = socket_file

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call's decoded answer; waits as long as the work takes."""
        connection = _UnixConnection(self._file)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ControlError(0, f"no stack answers at {self._file} ({error})") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise ControlError(answer.status, str(said.get("error", said)))
        return said


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, file: Path) -> None:
        super().__init__("localhost")
        self._file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._file))

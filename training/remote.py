"""A router, asked over HTTP; keys come from the environment alone, and are shown nowhere."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from adapters import ConfigError, ControlError

ADMIN_KEY, API_KEY = "LORA_SELECT_ADMIN_KEY", "LORA_SELECT_API_KEY"
"""Environment variables: the key of `router.admin_key`, and one of `router.keys`."""

LOOK_S = 15.0

NO_ROUTER = "is no router of LoRA-Select's"


class Remote:
    """One router, never through a proxy. Redirects are not followed: the key is for this one."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Raises ConfigError for what is no URL of a server."""
        self.url, self._key = url.rstrip("/"), key
        self._place = _place(self.url)

    @property
    def host(self) -> str:
        """Without the port."""
        return str(self._place.hostname)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = LOOK_S
    ) -> dict[str, Any]:
        """The decoded answer. Raises ControlError; status 0 where nobody answers."""
        connection = self._connection(timeout_s)
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.request(
                method, self._place.path + path, None if body is None else json.dumps(body), headers
            )
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(0, f"nobody answers at {self.url} ({error or type(error).__name__})") from None
        finally:
            connection.close()
        return self._read(answer.status, raw)

    def _read(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            said = json.loads(raw)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ControlError(status, f"what answers at {self.url} {NO_ROUTER} (status {status})")
        if status != 200:
            error = said.get("error")
            raise ControlError(status, str(error.get("message") if isinstance(error, dict) else error or said))
        return said

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._place.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self._place.port, timeout=timeout_s)


def key(name: str) -> str | None:
    """A key from the environment. Raises ConfigError for one that no header can hold."""
    value = os.environ.get(name, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{name}: holds characters that no key has; copy it again")
    return value or None


def _place(url: str) -> SplitResult:
    place = urlsplit(url)
    try:
        fine = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:
        fine = False
    if not fine or place.query or place.fragment or place.username is not None:
        raise ConfigError(f"{url}: expected the router's address, such as http://127.0.0.1:8000")
    return place

"""The engine's HTTP interface, as the supervisor's own threads use it: one call, one JSON answer."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 120.0
"""A load reads hundreds of megabytes from a disk that may be slow."""


class EngineError(Exception):
    """The engine refused, or did not answer; `status` is 0 for the latter."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineApi:
    """One engine, its OpenAI routes and those of `vllm_plugin`. Methods raise EngineError."""

    def __init__(self, url: str) -> None:
        self._url = url
        # From a process of ours, so never through a proxy that the environment names.
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """The decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data else {}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with self._direct.open(request, timeout=timeout_s) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise EngineError(error.code, _message(error.read()) or f"status {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(0, f"the engine at {self._url} does not answer: {error}") from None
        except ValueError:
            raise EngineError(0, f"what answers at {self._url}{path} speaks no JSON") from None

    def served(self) -> set[str]:
        """The names of `/v1/models`."""
        try:
            return {str(model["id"]) for model in self.call("GET", "/v1/models", timeout_s=5)["data"]}
        except (KeyError, TypeError):
            raise EngineError(0, f"what answers at {self._url} is no OpenAI server") from None

    def adapters(self) -> dict[str, Any]:
        """All adapters with their residency, and all names (`GET /lora_select/adapters`)."""
        return dict(self.call("GET", "/lora_select/adapters", timeout_s=10))

    def load(self, adapter: str, path: str) -> None:
        """Load NAME@VERSION from a folder."""
        self.call("PUT", f"/lora_select/adapters/{quote(adapter)}", {"path": path})

    def compose(self, adapter: str, library: dict[str, Any]) -> None:
        """Load a virtual adapter, of adapters that are loaded."""
        self.call("PUT", f"/lora_select/adapters/{quote(adapter)}", {"library": library})

    def unload(self, adapter: str) -> None:
        """Free an adapter's slot and memory; status 409 while it answers."""
        self.call("DELETE", f"/lora_select/adapters/{quote(adapter)}")

    def publish(self, name: str, adapter: str) -> None:
        """Let `name` point to an adapter."""
        self.call("PUT", f"/lora_select/names/{quote(name)}", {"adapter": adapter})

    def withdraw(self, name: str) -> None:
        """Let `name` point nowhere."""
        self.call("DELETE", f"/lora_select/names/{quote(name)}")


def _message(body: bytes) -> str:
    """vLLM's error, or FastAPI's."""
    try:
        said = json.loads(body)
        return str(said.get("error", {}).get("message") or said.get("detail") or said.get("message") or "")
    except (ValueError, AttributeError):
        return ""

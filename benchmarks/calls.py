"""One request at a time to a server of this machine, outside any load."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 120


def call(
    url: str, path: str, body: object = None, timeout_s: float = TIMEOUT_S, key: str = "", method: str = "GET"
) -> tuple[int, str]:
    """Status and text; a POST of a body, `method` where there is none. Raises OSError and HTTPException."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        if body is None:
            connection.request(method, path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def lists(url: str, names: Iterable[str]) -> bool:
    """Whether it is up and has all of these models."""
    try:
        status, text = call(url, "/v1/models", timeout_s=5)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and set(names) <= {one["id"] for one in json.loads(text)["data"]}


def until(true: Callable[[], bool], within_s: float, every_s: float = 0.2) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def parsed(status: int, text: str) -> Any:
    """The JSON of an answer. Raises ValueError for any status but 200, and for what is no JSON."""
    if status != 200:
        raise ValueError(f"status {status}: {text[:200]}")
    return json.loads(text)

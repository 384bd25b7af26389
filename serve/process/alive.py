"""Whether a ready process works: the engine by a token that it really makes, the others by any answer.

A busy engine must not be taken for a hanging one: a probe waits in vLLM's queue behind long prefills, so no
deadline on the probe alone is right. What a hanging engine cannot do is move its counters. They come from the
engine core with every step, chunks of a prefill included, so the engine is alive when they moved since the last
look, or else when it completes one token. It hangs when neither was so for `engine.liveness_s`, which therefore
has to be longer than the longest single step (a chunk of max-num-batched-tokens) and than the loading of an
adapter from a slow disk, but not than the longest request.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable

COUNTERS = re.compile(
    r"(?m)^vllm:(?:generation_tokens_total|prompt_tokens_total|iteration_tokens_total_count|kv_cache_usage_perc)\b.*"
)
METRICS_TIMEOUT_S = 5.0
MOST_EVERY_S = 10.0


def every_s(deadline_s: float) -> float:
    """How long after a look the next one begins, so that several fit into the deadline."""
    return min(MOST_EVERY_S, deadline_s / 6)


def engine_alive(url: str, model: str, deadline_s: float) -> Callable[[], bool]:
    """Asks vLLM at `url`, of which `model` is the base; one question takes less than half of the deadline."""
    seen = ""

    def look() -> bool:
        nonlocal seen
        before, seen = seen, _counters(url)
        if seen and before and seen != before:
            return True
        alive = _completes(url, model, deadline_s / 3)
        seen = _counters(url)  # so that this token is not taken for traffic
        return alive

    return look


def answers(url: str) -> Callable[[], bool]:
    """Whether anything at all comes back."""

    def look() -> bool:
        try:
            _ask(url, METRICS_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        return True

    return look


def _completes(url: str, model: str, timeout_s: float) -> bool:
    body = {"model": model, "prompt": ".", "max_tokens": 1, "temperature": 0}
    try:
        return bool(json.loads(_ask(f"{url}/v1/completions", timeout_s, body))["choices"])
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500  # refused before it reached the engine: no proof against it
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _counters(url: str) -> str:
    try:
        return "\n".join(COUNTERS.findall(_ask(f"{url}/metrics", METRICS_TIMEOUT_S).decode("utf-8", "replace")))
    except OSError:
        return ""


def _ask(url: str, timeout_s: float, body: object = None) -> bytes:
    """A process of ours, so never through a proxy that the environment names."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=timeout_s) as answer:
        return bytes(answer.read())

"""The connection to the router, and its errors in words for a reader."""

from __future__ import annotations

import os

import openai

KEY = "LORA_SELECT_API_KEY"
"""Environment variable with the page's key, where the router wants one; it never reaches the browser."""


def connect(url: str) -> openai.AsyncOpenAI:
    """A client for the router at `url` (without /v1). It asks once: a retry would hide what went wrong."""
    timeout = openai.Timeout(600, connect=5)
    key = os.environ.get(KEY, "none")
    return openai.AsyncOpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=key, timeout=timeout, max_retries=0)


def router_url(client: openai.AsyncOpenAI) -> str:
    """The router's own root, where /route lives."""
    return str(client.base_url).rstrip("/").removesuffix("/v1")


def explain(error: Exception, url: str, started: bool = False) -> str:
    """One sentence for the reader: what failed, and what to look at."""
    match error:
        case openai.APITimeoutError():
            sentence = f"The router at {url} took too long to answer."
        case openai.APIConnectionError() if started:
            sentence = "The answer broke off: the connection to the router was lost."
        case openai.APIConnectionError():
            sentence = f"The router at {url} does not answer. Is it running?"
        case openai.APIStatusError(status_code=503):
            sentence = f"The model server is not ready (503): {_message(error)}"
        case openai.APIStatusError():
            verb = "failed" if error.status_code >= 500 else "was refused"
            sentence = f"The request {verb} ({error.status_code}): {_message(error)}"
        case UnicodeEncodeError():
            sentence = "Tags go in a header, which has letters, digits and signs of ASCII alone."
        case openai.APIError():
            sentence = f"The answer broke off: {_message(error)}"
        case _:
            sentence = f"The router at {url} sent something that is not an answer: {error}"
    return sentence


def _message(error: openai.APIError) -> str:
    said = error.body.get("message") if isinstance(error.body, dict) else None
    return str(said or error.message).strip()

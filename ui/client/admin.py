"""What the page asks of the router with the admin key."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import openai

from ui.client.adapter import Adapter
from ui.client.connect import explain, router_url

CHECK_S = 10
LIST_S = 15
"""The router's manager waits 10 s at most for the engine's word."""

NO_KEY = "no_admin_key"
"""The router's code where its stack has no admin key at all."""

CLOSED = (
    "This stack has no admin key (router.admin_key): its metrics are open, its adapters and its decision log are "
    "not shown to anybody."
)


NO_LOG = "no_decision_log"
NOBODY = "none"
"""For who has typed no admin key: the page's own key, which may be the admin's, is for the chat alone."""


class AdminError(Exception):
    """Why an admin's wish failed, in one sentence; `status` is 0 where nothing answered."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


async def check(client: openai.AsyncOpenAI, key: str) -> None:
    """Raises AdminError unless `key` is the router's admin key."""
    router = client.with_options(base_url=router_url(client), api_key=key, timeout=CHECK_S)
    try:
        await router.get("/admin/decisions?limit=1", cast_to=object)
    except openai.NotFoundError as error:
        if error.code != NO_LOG:  # which a router says to its admin alone
            raise told(error, router_url(client)) from None
    except (openai.OpenAIError, ValueError) as error:
        raise told(error, router_url(client)) from None


def told(error: Exception, url: str) -> AdminError:
    """The same in words: a wrong key, a stack without one, or what else failed."""
    match error:
        case openai.APIStatusError(code=code) if code == NO_KEY:
            return AdminError(CLOSED, error.status_code)
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return AdminError(f"This is not the admin key of the router at {url}.", error.status_code)
        case UnicodeEncodeError():
            return AdminError("A key has letters, digits and signs of ASCII alone.")
        case openai.APIStatusError(status_code=400 | 404 | 409):
            said = error.body.get("message") if isinstance(error.body, dict) else None
            return AdminError(f"Refused: {said or error.message}", error.status_code)
        case openai.APIStatusError():
            return AdminError(explain(error, url), error.status_code)
    return AdminError(explain(error, url))


async def listed(client: openai.AsyncOpenAI, key: str) -> tuple[tuple[Adapter, ...], tuple[Adapter, ...]]:
    """Adapters, and virtual models. Raises AdminError."""
    answer = await _asked(client, key, "GET", "", within_s=LIST_S)
    return _adapters(answer, "adapters"), _adapters(answer, "lag")


async def add(client: openai.AsyncOpenAI, key: str, wish: dict[str, Any]) -> tuple[Adapter, ...]:
    """Load, test and serve it, or a new version of it: its versions. Raises AdminError with the reason."""
    return _adapters(await _asked(client, key, "POST", "", wish), "adapters")


async def test(client: openai.AsyncOpenAI, key: str, name: str) -> tuple[Adapter, ...]:
    """Its self-test once more: its versions, with what was found. Raises AdminError."""
    return _adapters(await _asked(client, key, "POST", f"/{quote(name, safe='')}/test", {}), "adapters")


async def remove(client: openai.AsyncOpenAI, key: str, name: str) -> None:
    """Returns when it is unloaded. Raises AdminError."""
    await _asked(client, key, "DELETE", f"/{quote(name, safe='')}")


async def _asked(
    client: openai.AsyncOpenAI,
    key: str,
    method: Literal["GET", "POST", "DELETE"],
    path: str,
    body: dict[str, Any] | None = None,
    within_s: float | None = None,
) -> Any:
    router = client.with_options(
        base_url=router_url(client), api_key=key or NOBODY, timeout=within_s or client.timeout
    )
    ask: Any = {"GET": router.get, "POST": router.post, "DELETE": router.delete}[method]
    given: dict[str, Any] = {} if body is None else {"body": body}
    try:
        return await ask(f"/admin/adapters{path}", cast_to=object, **given)
    except (openai.OpenAIError, ValueError) as error:
        raise told(error, router_url(client)) from None


def _adapters(answer: Any, part: str) -> tuple[Adapter, ...]:
    told = answer.get(part) if isinstance(answer, dict) else None
    return tuple(Adapter.of(one) for one in told or () if isinstance(one, dict))

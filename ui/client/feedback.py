"""What people say of an answer, told to the router; and what it has kept of that, for its admin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openai

from ui.client.admin import NO_LOG, AdminError, told
from ui.client.connect import explain, router_url

TIMEOUT_S = 10
"""The router's code where its stack keeps none."""

NOWHERE = "This stack keeps no decision log (router.decision_log), so there is nowhere to store what you say."
NO_ROWS = "This stack keeps no decision log (router.decision_log), so nothing that people said is kept."
FORGOTTEN = "The router does not know this answer: its row in the decision log is gone, or belongs to another key."
NONSENSE = "The router sent something that is not its decision log."
UP, DOWN = "up", "down"


@dataclass(frozen=True)
class Opinion:
    """Of the answer to a request: the model that would have been right, a thumb, a comment; "" where nothing is
    said."""

    request_id: str
    adapter: str = ""
    rating: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Judged:
    """A request that somebody spoke of, at `time` (Unix seconds) for the last time. `text` is the user's last
    turn, "" where only its `sha256` was logged; `better` is the model that would have been right."""

    time: float
    text: str
    sha256: str
    model: str
    better: str
    rating: str
    comment: str

    @property
    def right(self) -> bool | None:
        """Whether the model was right: by the word that names one, or else by the thumb."""
        if self.better:
            return self.better == self.model
        return self.rating == UP if self.rating else None


class FeedbackError(Exception):
    """Why it was not stored, in one sentence."""


async def give(client: openai.AsyncOpenAI, opinion: Opinion) -> None:
    """Have it stored. Raises FeedbackError."""
    said = {"adapter": opinion.adapter, "rating": opinion.rating, "comment": opinion.comment.strip()}
    body = {"request_id": opinion.request_id} | {key: value for key, value in said.items() if value}
    router = client.with_options(base_url=router_url(client), timeout=TIMEOUT_S)
    try:
        await router.post("/feedback", body=body, cast_to=object)
    except openai.NotFoundError as error:
        unknown = FORGOTTEN if error.param == "request_id" else explain(error, router_url(client))
        raise FeedbackError(NOWHERE if error.code == NO_LOG else unknown) from None
    except (openai.OpenAIError, ValueError) as error:
        raise FeedbackError(explain(error, router_url(client))) from None


async def judged(client: openai.AsyncOpenAI, key: str, limit: int) -> tuple[Judged, ...]:
    """The newest requests that somebody spoke of, for the admin's key. Raises AdminError."""
    router = client.with_options(base_url=router_url(client), api_key=key, timeout=TIMEOUT_S)
    try:
        reply: Any = await router.get(f"/admin/decisions?feedback=1&limit={limit}", cast_to=object)
        return tuple(_judged(row) for row in reply["decisions"])
    except openai.NotFoundError as error:
        raise (AdminError(NO_ROWS, 404) if error.code == NO_LOG else told(error, router_url(client))) from None
    except (KeyError, TypeError, AttributeError):
        raise AdminError(NONSENSE) from None
    except (openai.OpenAIError, ValueError) as error:
        raise told(error, router_url(client)) from None


def _judged(row: Mapping[str, Any]) -> Judged:
    """Of several words, the last one counts; of comments, all."""
    said = row["feedback"]
    return Judged(
        time=float(said[-1]["time"] if said else row["time"]),
        text=str(row["text"] or ""),
        sha256=str(row["text_sha256"] or ""),
        model=str(row["model"] or ""),
        better=_last(said, "adapter"),
        rating=_last(said, "rating"),
        comment=" / ".join(str(one["comment"]) for one in said if one["comment"]),
    )


def _last(said: list[Mapping[str, Any]], field: str) -> str:
    return next((str(one[field]) for one in reversed(said) if one[field]), "")

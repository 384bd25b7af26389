"""What was decided, and what people say of it: the decision log's side of the HTTP interface."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import orjson

from router.access import Client
from router.decisions import DecisionLog
from router.errors import BadRequest, NotFound

MOST = 1000
RATINGS = ("up", "down")
FIELDS = ("request_id", "adapter", "rating", "comment")
LONGEST = 2000
LONGEST_NUMBER = 9
"""Digits; Python refuses to read thousands of them."""


class Admin:
    """Both routes answer 404 where the stack keeps no log."""

    def __init__(self, log: DecisionLog | None) -> None:
        self._log = log

    async def decisions(self, query_string: str) -> bytes:
        """`GET /admin/decisions?limit=50&request_id=…`: the newest first, as JSON."""
        query = parse_qs(query_string)
        limit = query.get("limit", ["50"])[-1]
        if not limit.isdecimal() or len(limit) > LONGEST_NUMBER or not 1 <= int(limit) <= MOST:
            raise BadRequest(f'"limit" must be a number from 1 to {MOST}', param="limit")
        rows = self._kept().recent(int(limit), query.get("request_id", [None])[-1])
        return orjson.dumps({"decisions": await asyncio.wrap_future(rows)})

    async def feedback(self, body: dict[str, Any], client: Client, now: float) -> dict[str, Any]:
        """`POST /feedback {"request_id", "adapter"?, "rating"?: "up" | "down", "comment"?}`.

        `adapter` is the model that would have been right. Of its own requests alone a key may speak, but for the
        admin's. Raises BadRequest, or NotFound for an unknown request.
        """
        log = self._kept()
        if unknown := sorted(set(body) - set(FIELDS)):
            raise BadRequest(f'unknown field "{unknown[0]}"; valid here: {", ".join(FIELDS)}', param=unknown[0])
        for field in FIELDS:
            if not isinstance(body.get(field, ""), str | None) or len(body.get(field) or "") > LONGEST:
                raise BadRequest(f'"{field}" must be text of at most {LONGEST} characters', param=field)
        if not body.get("request_id"):
            raise BadRequest('"request_id" is missing: the x-request-id of the answer', param="request_id")
        if body.get("rating") not in (None, *RATINGS):
            raise BadRequest('"rating" must be "up" or "down"', param="rating")
        if not any(body.get(field) for field in FIELDS[1:]):
            raise BadRequest(f"say something: {', '.join(FIELDS[1:])}", param="rating")
        said = (now, body["request_id"], client.name, *(body.get(field) for field in FIELDS[1:]))
        if not await asyncio.wrap_future(log.add_feedback(said, of_any=client.admin)):
            raise NotFound(f'no request "{body["request_id"]}" of this key was decided here', param="request_id")
        return {"stored": True}

    def _kept(self) -> DecisionLog:
        if self._log is None:
            raise NotFound("this router keeps no decision log (router.decision_log)", code="no_decision_log")
        return self._log

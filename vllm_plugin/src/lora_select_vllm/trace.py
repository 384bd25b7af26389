"""Which adapter LAG used where: per request and position, kept until newer requests need the room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

KEPT_TOKENS = 1 << 17
"""Of all requests together: at 8 library slots 6 MB."""


@dataclass(eq=False)
class Kept:
    """One request's tokens, in pieces of one step each: first position, votes [t, n], and shares [t, n], which
    are of what observes only. n library slots; `names` has the member in each, "" where none was."""

    names: tuple[str, ...]
    pieces: list[tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True)
class Rows:
    """A request's rows among the routed ones of a step: how many, the position of the first in the request, and
    its row in the batch."""

    request: str
    position: int
    count: int
    names: tuple[str, ...]
    row: int


class Trace:
    """Votes are counted while a step runs, and belong to its requests when it is over."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._step: Sequence[Rows] = ()
        self._votes = torch.zeros(0, 0, dtype=torch.int16)
        self._shares = torch.zeros(0, 0)

    def begin(self, step: Sequence[Rows], width: int, device: torch.device | str) -> None:
        """The step before is over; this one has these routed rows, of `width` library slots."""
        self._fold()
        self._step, rows = step, sum(one.count for one in step)
        self._votes = torch.zeros(rows, width, dtype=torch.int16, device=device)
        self._shares = torch.zeros(rows, width, device=device)

    def count(
        self,
        chosen: torch.Tensor,
        norm: torch.Tensor,
        member: torch.Tensor,
        total: torch.Tensor,
        observed: bool,
    ) -> None:
        """One projection's choice `chosen` [T] (-1: none), from `norm` [T, n] of `member` [T, n]; `total` [slots]
        counts them for the layer. Shares are summed where any row is `observed`."""
        width = norm.shape[1]
        one = chosen.unsqueeze(1) == torch.arange(width, device=norm.device)
        total[:width] += one.sum(dim=0)
        if one.shape != self._votes.shape:  # vLLM's own trial runs
            return
        self._votes += one
        if observed:
            norm = norm.masked_fill(~member, 0)
            self._shares += norm / norm.sum(dim=1, keepdim=True).clamp_min(torch.finfo(norm.dtype).tiny)

    def of(self, request: str) -> dict[str, Any] | None:
        """By vLLM's own id: the `names` of the library, and per position (None: it came from the prefix cache, or
        nobody was asked) its votes and its summed shares of the scores."""
        self._fold()
        kept = self._kept.get(request)
        if kept is None:
            return None
        length = max((first + len(votes) for first, votes, _ in kept.pieces), default=0)
        votes: list[list[int] | None] = [None] * length
        shares: list[list[float] | None] = [None] * length
        for first, voted, shared in kept.pieces:  # a request that was preempted computes positions again
            votes[first : first + len(voted)] = voted.tolist()
            shares[first : first + len(shared)] = shared.tolist()
        return {"names": list(kept.names), "votes": votes, "shares": shares}

    def _fold(self) -> None:
        start = 0
        for rows in self._step:
            part = slice(start, start + rows.count)
            start += rows.count
            kept = self._kept.setdefault(rows.request, Kept(rows.names))
            self._kept.move_to_end(rows.request)
            kept.pieces.append((rows.position, self._votes[part], self._shares[part]))
            kept.tokens += rows.count
        self._step = ()
        total = sum(kept.tokens for kept in self._kept.values())
        while total > KEPT_TOKENS and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            total -= oldest.tokens

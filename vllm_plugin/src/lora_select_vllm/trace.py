"""Which adapter LAG used where: per request, position and layer, kept until newer requests need the room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

KEPT_CELLS = 1 << 24
"""Of all requests together, a byte for a token, layer and library slot: at 32 layers and 8 slots 65,536 tokens."""

TOLD_CELLS = 1 << 17
"""Of one request at once: its answer is told by layer as far as so many go, 512 tokens there."""

FEWEST = 64
"""Tokens that a request has room for at first."""


@dataclass(eq=False)
class Kept:
    """One request. `names` has the member in each of n library slots, "" where none was; `votes` [room, layers, n]
    counts projections by position, `shares` [length, n] sums what observed projections gave each."""

    names: tuple[str, ...]
    votes: torch.Tensor
    shares: torch.Tensor
    length: int = 0

    @classmethod
    def of(cls, names: tuple[str, ...], layers: int, device: torch.device) -> Kept:
        """Nothing so far."""
        votes = torch.zeros(FEWEST, layers, len(names), dtype=torch.uint8, device=device)
        return cls(names, votes, torch.zeros(FEWEST, len(names), device=device))

    def take(self, first: int, votes: torch.Tensor, shares: torch.Tensor) -> None:
        """Of the positions from `first` on, [t, layers, width] and [t, width]; who was preempted computes some
        again."""
        end, width = first + len(votes), votes.shape[-1]
        if end > len(self.votes):
            most = max(end, 2 * len(self.votes))
            self.votes, self.shares = (self._grown(one, most) for one in (self.votes, self.shares))
        self.votes[first:end, :, :width] = votes
        self.shares[first:end, :width] = shares
        self.length = max(self.length, end)

    def _grown(self, kept: torch.Tensor, most: int) -> torch.Tensor:
        more = kept.new_zeros(most, *kept.shape[1:])
        more[: self.length] = kept[: self.length]
        return more

    def by_layer(self, first: int) -> torch.Tensor:
        """The votes from a position on, [t, layers, n], no more than TOLD_CELLS."""
        most = TOLD_CELLS // max(1, self.votes[0].numel())
        return self.votes[first : min(self.length, first + most)]


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
    """Votes are counted while a step runs, and belong to its requests when it is over; of a model with so many
    `layers`."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._room = 0
        self._step: Sequence[Rows] = ()
        self._votes = torch.zeros(0, 0, 0, dtype=torch.uint8)
        self._shares = torch.zeros(0, 0)

    def begin(self, step: Sequence[Rows], width: int, device: torch.device | str) -> None:
        """The step before is over; this one has these routed rows, of `width` library slots."""
        self._fold()
        self._step, rows = step, sum(one.count for one in step)
        self._votes = torch.zeros(rows, self._layers, width, dtype=torch.uint8, device=device)
        self._shares = torch.zeros(rows, width, device=device)

    def count(
        self,
        chosen: torch.Tensor,
        score: torch.Tensor,
        member: torch.Tensor,
        total: torch.Tensor,
        observe: torch.Tensor | None,
        layer: int,
    ) -> None:
        """One projection's choice `chosen` [T] (-1: none), from `score` [T, n] of `member` [T, n]; `total` [slots]
        counts for the layer what is applied. `observe` [T]: whose shares are summed; None where nobody's are."""
        width = score.shape[1]
        one = chosen.unsqueeze(1) == torch.arange(width, device=score.device)
        applied = one if observe is None else one & ~observe.unsqueeze(1)
        total[:width] += applied.sum(dim=0)
        if one.shape != self._shares.shape:  # vLLM's own trial runs
            return
        self._votes[:, layer] += one
        if observe is not None:
            score = score.masked_fill(~member, 0)
            self._shares += score / score.sum(dim=1, keepdim=True).clamp_min(torch.finfo(score.dtype).tiny)

    @torch.inference_mode()
    def of(self, request: str, first: int | None = None) -> dict[str, Any] | None:
        """By vLLM's own id, None where it is not kept: the `names` of the library; per position the place that
        most projections chose (`chosen`; -1: it came from the prefix cache, or nothing is adapted) and their
        `share`; all `votes` and summed `shares` by place. Of the positions from `first` on, as many as TOLD_CELLS
        allow, the votes by layer and place, in `layers`."""
        self._fold()
        kept = self._kept.get(request)
        if kept is None:
            return None
        votes = kept.votes[: kept.length].sum(dim=1, dtype=torch.int32).cpu()
        asked, best = votes.sum(dim=1), votes.max(dim=1)
        return {
            "names": list(kept.names),
            "chosen": torch.where(asked > 0, best.indices, -1).tolist(),
            "share": (best.values / asked.clamp_min(1)).tolist(),
            "votes": votes.sum(dim=0).tolist(),
            "shares": kept.shares[: kept.length].sum(dim=0).tolist(),
            "layers": [] if first is None else kept.by_layer(first).tolist(),
        }

    @torch.inference_mode()
    def _fold(self) -> None:
        start = 0
        for rows in self._step:
            part = slice(start, start + rows.count)
            start += rows.count
            kept = self._kept.get(rows.request) or Kept.of(rows.names, self._layers, self._votes.device)
            self._room -= kept.votes.numel() if rows.request in self._kept else 0
            kept.take(rows.position, self._votes[part], self._shares[part])
            self._room += kept.votes.numel()
            self._kept[rows.request] = kept
            self._kept.move_to_end(rows.request)
        running, self._step = len(self._step), ()
        while self._room > KEPT_CELLS and len(self._kept) > running:
            _, oldest = self._kept.popitem(last=False)
            self._room -= oldest.votes.numel()

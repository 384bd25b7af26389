"""Rows of a batch, grouped by what applies to them."""

from __future__ import annotations

import torch

Index = slice | torch.Tensor
"""Rows; a run of neighbours is a slice, which copies nothing."""


def grouped(slots: torch.Tensor) -> list[tuple[int, Index]]:
    """The rows of each slot, for `slots` [rows] on the CPU; rows below 0, the base's, are left out."""
    order = torch.argsort(slots, stable=True)
    ids, counts = torch.unique_consecutive(slots[order], return_counts=True)
    parts = order.split(counts.tolist())
    return [(slot, index(rows)) for slot, rows in zip(ids.tolist(), parts, strict=True) if slot >= 0]


def index(rows: torch.Tensor) -> Index:
    """For ascending row numbers."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def within(outer: Index, inner: Index) -> Index:
    """The rows that `inner` picks out of those of `outer`."""
    if isinstance(outer, torch.Tensor):
        return outer[inner]
    if isinstance(inner, torch.Tensor):
        return inner + outer.start
    return slice(outer.start + inner.start, outer.start + inner.stop)


def add(y: torch.Tensor, rows: Index, z: torch.Tensor, b: torch.Tensor) -> None:
    """y[rows] += z bᵀ, for `y` [tokens, out], `z` [rows, r] and `b` [out, r]."""
    z, b = z.to(y.dtype), b.to(y.dtype)
    if isinstance(rows, slice):
        y[rows].addmm_(z, b.T)
    else:
        y.index_add_(0, rows, z @ b.T)

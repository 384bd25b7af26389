"""Rows of a batch, grouped by what applies to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Index = slice | torch.Tensor
"""Rows; a run of neighbours is a slice, which copies nothing."""

FEW = 16
"""Rows of a slot up to which calls cost more than work: neighbouring slots with so few share one."""


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of S neighbouring slots, m of each: a slot that has fewer repeats its last one, and `spare`
    [S, m, 1] says where (None: nowhere)."""

    slots: slice
    rows: Index
    spare: torch.Tensor | None = None

    @property
    def alone(self) -> bool:
        """S is 1."""
        return self.slots.stop - self.slots.start == 1

    def within(self, outer: Index) -> Group:
        """The same, where `rows` are meant of those that `outer` picks out."""
        return Group(self.slots, _within(outer, self.rows), self.spare)

    def places(self) -> int | torch.Tensor:
        """The slot of each row; one number where all have the same."""
        if self.alone:
            return int(self.slots.start)
        slots = torch.arange(self.slots.start, self.slots.stop)
        return slots.repeat_interleave(len(self.rows) // len(slots))  # type: ignore[arg-type]

    def shrink(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Their z [rows, r], for `x` [tokens, in] and `a` [slots, r, in]."""
        its = x[self.rows]
        if self.alone:
            return its @ a[self.slots.start].to(x.dtype).T
        a = a[self.slots]
        return torch.bmm(its.unflatten(0, (len(a), -1)), a.to(x.dtype).transpose(1, 2)).flatten(0, 1)

    def expand(self, y: torch.Tensor, z: torch.Tensor, b: torch.Tensor) -> None:
        """y[rows] += z bᵀ, for `y` [tokens, out], `z` [rows, r] and `b` [slots, out, r]."""
        z, b = z.to(y.dtype), b[self.slots].to(y.dtype)
        if isinstance(self.rows, slice):
            y[self.rows].addmm_(z, b[0].T)
        elif self.alone:
            y.index_add_(0, self.rows, z @ b[0].T)
        else:
            z = z.unflatten(0, (len(b), -1))
            z = z if self.spare is None else z.masked_fill(self.spare, 0)
            y.index_add_(0, self.rows, torch.bmm(z, b.transpose(1, 2)).flatten(0, 1))


def grouped(slots: torch.Tensor) -> list[Group]:
    """The rows of each slot, for `slots` [rows] on the CPU; rows below 0, the base's, are left out."""
    first, *counts = torch.bincount(slots + 1).tolist() or [0]
    order = slots.argsort(stable=True)
    found: list[Group] = []
    near: dict[int, torch.Tensor] = {}
    for slot, count in enumerate(counts):
        rows = order[first : (first := first + count)]
        if 0 < count <= FEW:
            near[slot] = rows
            continue
        if near:
            found.append(_together(near))
            near = {}
        if count:
            found.append(Group(slice(slot, slot + 1), index(rows)))
    return [*found, _together(near)] if near else found


def _together(near: dict[int, torch.Tensor]) -> Group:
    slots = slice(min(near), max(near) + 1)
    if len(near) == 1:
        return Group(slots, index(near[slots.start]))
    listed = [rows.tolist() for rows in near.values()]
    most = max(map(len, listed))
    padded = torch.tensor([rows[min(at, len(rows) - 1)] for rows in listed for at in range(most)])
    if most * len(listed) == sum(map(len, listed)):
        return Group(slots, padded)
    spare = torch.tensor([[[at >= len(rows)] for at in range(most)] for rows in listed])
    return Group(slots, padded, spare)


def index(rows: torch.Tensor) -> Index:
    """For ascending row numbers."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _within(outer: Index, inner: Index) -> Index:
    """The rows that `inner` picks out of those of `outer`."""
    if isinstance(outer, torch.Tensor):
        return outer[inner]
    if isinstance(inner, torch.Tensor):
        return inner + outer.start
    return slice(outer.start + inner.start, outer.start + inner.stop)

"""LAG's two Triton kernels: one chooses for every row, one adds what was chosen. Imported on CUDA only.

n library slots, rank r, T rows, L libraries of a virtual adapter at most. A step of decode is bound by the number
of launches, not by their work, so each projection has three: z = A x of all slots (a matrix product), and these;
where ranks share its input, a copy and a sum besides. Both leave at once for rows of nobody's. A row's program
owns its votes and shares, so these need no atomics.
"""

from __future__ import annotations

import torch
from vllm.triton_utils import tl, triton

TILE = 4096
"""Numbers of B that a program holds: columns by rank."""

MOST = 1 << 13
"""Numbers of z that a program holds, slots by rank; with four times as many it takes a minute to compile."""

FEW_ROWS, TOGETHER = 256, 16
"""Above so many rows, a program takes several of them one after the other: its part of B is in the cache then."""


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _choose(
    z, w, present, member, k, projection, observe, layer, best, chosen, votes, shares, rows, slots, rank, layers,
    LIBRARIES: tl.constexpr, N: tl.constexpr, R: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    n, j = tl.arange(0, N), tl.arange(0, R)
    there = n < slots
    here = tl.load(present + n, mask=there, other=0).to(tl.int1)
    members = member + row * LIBRARIES * slots + n
    anyone = tl.zeros([N], tl.int32)
    for library in tl.static_range(LIBRARIES):
        anyone |= (tl.load(members + library * slots, mask=there, other=0).to(tl.int1) & here).to(tl.int32)
        tl.store(best + library * rows + row, -1)
    if tl.max(anyone, axis=0) > 0:
        inside = there[:, None] & (j < rank)[None, :]
        x = tl.load(z + row * slots * rank + n[:, None] * rank + j[None, :], mask=inside, other=0.0)
        line = w + n[:, None] * (2 * rank + 1) * rank + j[None, :]
        arrow = tl.abs(tl.sum(tl.load(line, mask=inside, other=0.0) * x, axis=1))
        first = 1 + rank * tl.load(projection + row).to(tl.int32)
        square = tl.zeros([N], tl.float32)
        for one in range(first, first + rank):
            part = tl.sum(tl.load(line + one * rank, mask=inside, other=0.0) * x, axis=1)
            square += part * part
        score = tl.sqrt_rn(square)
        # Where z has overflowed and the score is no number, argmax would name any column, and its weights be read
        # from anywhere.
        score = tl.where(score < 1e30, score, 1e30)
        most, watched = tl.load(k + row), tl.load(observe + row).to(tl.int1)
        voted, share = tl.zeros([N], tl.int32), tl.zeros([N], tl.float32)
        for library in tl.static_range(LIBRARIES):
            its = tl.load(members + library * slots, mask=there, other=0).to(tl.int1) & here
            if tl.max(its.to(tl.int32), axis=0) > 0:
                own = tl.where(its, arrow, -1.0)
                before = tl.zeros([N], tl.int32)
                for other in range(slots):
                    theirs = tl.sum(tl.where(n == other, own, 0.0), axis=0)
                    # Of equals the first is before the others, as in lag.choose.
                    before += ((theirs > own) | ((theirs == own) & (other < n))).to(tl.int32)
                kept = its & (before < most)
                its_best = tl.argmax(tl.where(kept, score, -1.0), axis=0, tie_break_left=True)
                voted += (n == its_best).to(tl.int32)
                given = tl.where(its, score, 0.0)
                share += given / tl.maximum(tl.sum(given, axis=0), 1.1754944e-38)
                if watched == 0:
                    tl.store(best + library * rows + row, its_best)
        if watched == 0:
            tl.atomic_add(chosen + n, voted.to(tl.int64), mask=there & (voted > 0))
        place = votes + (row * layers + tl.load(layer)) * slots + n
        tl.store(place, (tl.load(place, mask=there, other=0).to(tl.int32) + voted).to(tl.uint8), mask=there)
        total = shares + row * slots + n
        tl.store(total, tl.load(total, mask=there, other=0.0) + share, mask=there)


@triton.jit(do_not_specialize=["rows", "together"])  # type: ignore[untyped-decorator]
def _expand(
    y, z, b, best, rows, together, slots, rank, outs, y_row, b_slot,
    LIBRARIES: tl.constexpr, R: tl.constexpr, COLUMNS: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    column, j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, R)
    wide, deep = column < outs, j < rank
    first = tl.program_id(1).to(tl.int64) * together
    for step in range(together):
        row = first + step
        asked = row < rows
        taken = tl.full([], -1, tl.int32)
        added = tl.zeros([COLUMNS], tl.float32)
        # One library after the other: two may have chosen for the same row.
        for library in tl.static_range(LIBRARIES):
            slot = tl.load(best + library * rows + row, mask=asked, other=-1)
            taken = tl.maximum(taken, slot)
            if slot >= 0:
                x = tl.load(z + (row * slots + slot) * rank + j, mask=deep, other=0.0)
                at = b + slot.to(tl.int64) * b_slot + column[:, None] * rank + j[None, :]
                up = tl.load(at, mask=wide[:, None] & deep[None, :], other=0.0).to(tl.float32)
                added += tl.sum(up * x[None, :], axis=1)
        if taken >= 0:
            at = y + row * y_row + column
            old = tl.load(at, mask=wide, other=0.0).to(tl.float32)
            tl.store(at, (old + added).to(y.dtype.element_ty), mask=wide)


def choose(
    z: torch.Tensor,
    w: torch.Tensor,
    present: torch.Tensor,
    member: torch.Tensor,
    k: torch.Tensor,
    projection: torch.Tensor,
    observe: torch.Tensor,
    layer: torch.Tensor,
    chosen: torch.Tensor,
    votes: torch.Tensor,
    shares: torch.Tensor,
) -> torch.Tensor:
    """`lag.route` for each library: the slot of each row's adapter, [L, T], -1 where it has none or only observes.

    `z` [T, n, r], float32 and contiguous, is A x of every slot; the others are as in `routed_op.add_routed`.
    Choices are counted in `chosen`, `votes` and `shares`.
    """
    rows, slots, rank = z.shape
    libraries, wide, deep = member.shape[1], triton.next_power_of_2(slots), triton.next_power_of_2(rank)
    best = torch.empty(libraries, rows, dtype=torch.int32, device=z.device)
    _choose[(rows,)](
        z, w, present, member, k, projection, observe, layer, best, chosen, votes, shares, rows, slots, rank,
        votes.shape[1], LIBRARIES=libraries, N=wide, R=deep, num_warps=_warps(wide * deep),
    )  # fmt: skip
    return best


def expand(y: torch.Tensor, z: torch.Tensor, b: torch.Tensor, best: torch.Tensor, offset: int) -> None:
    """Add B z of what `best` [L, T] names to `y` [T, outs], from column `offset` on; `z` [T, n, r], float32, `b`
    [n, 1, out, r], both contiguous."""
    (rows, slots, rank), outs = z.shape, b.shape[2]
    deep = triton.next_power_of_2(rank)
    columns, together = max(16, min(256, TILE // deep)), 1 if rows <= FEW_ROWS else TOGETHER
    _expand[(triton.cdiv(outs, columns), triton.cdiv(rows, together))](
        y[:, offset:], z, b, best, rows, together, slots, rank, outs, y.stride(0), b.stride(0),
        LIBRARIES=len(best), R=deep, COLUMNS=columns,
    )  # fmt: skip


def _warps(numbers: int) -> int:
    """Of a program that holds so many: some 16 a thread."""
    return int(min(16, max(1, triton.next_power_of_2(numbers) // 512)))

"""LAG's mathematics: which adapter of a library each token gets in one projection (Fleshman and Van Durme, 2025,
arXiv 2507.05346). Imports no vLLM.

With ΔW = s·B·A = U S Vᵀ of rank r: the k adapters with the largest |v₁·x| are kept (Arrow, arXiv 2405.11157), and
of those the one with the largest score is applied, alone and whole. The score is ‖S Vᵀ x‖ = ‖ΔW x‖ (`norm`, as
SEQR reads it) or ‖Vᵀ x‖ (`projection`, as eqs. 3 and 4 print it).

No weight is rewritten: all of these are linear in z = A x, which the adapter's own delta needs as well. With the
thin QR Aᵀ = Qa Ra and B = Qb Rb, the SVD Rb Raᵀ = Um S Vmᵀ and P = Umᵀ Rb, it is P z = S Vᵀ x.
"""

from __future__ import annotations

import torch

NOTHING = 1e-6
"""Of the largest singular value: what is smaller is rounding, and has no direction of its own."""


def constants(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What turns z = A x into scores: [2r + 1, r], float32, for `a` [r, in] and `b` [out, r], scaled.

    Row 0 gives v₁·x, the next r rows S Vᵀ x, the last r rows Vᵀ x. All zero for an adapter that does nothing here.
    """
    rank = a.shape[0]
    # The CPU does this in double precision, whatever the device: once per adapter.
    ra = torch.linalg.qr(a.double().cpu().T)[1]
    rb = torch.linalg.qr(b.double().cpu())[1]
    um, s, _ = torch.linalg.svd(rb @ ra.T, full_matrices=False)
    p = um.T @ rb
    inverse = torch.where(s > NOTHING * s[0], 1 / s, 0.0)
    p[inverse == 0] = 0
    rows = torch.zeros(2 * rank + 1, rank, dtype=torch.float64)
    rows[0] = p[0] * inverse[0]
    rows[1 : 1 + len(p)] = p
    rows[1 + rank : 1 + rank + len(p)] = p * inverse.unsqueeze(1)
    return rows.float()


def scores(z: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """|v₁·x|, ‖S Vᵀ x‖ and ‖Vᵀ x‖, each [T, n], for `z` [T, n, r] and `w` [n, 2r + 1, r], both float32."""
    rank = z.shape[-1]
    each = torch.bmm(z.transpose(0, 1), w.transpose(1, 2)).transpose(0, 1)
    arrow, norm, projection = each.split((1, rank, rank), dim=-1)
    length = torch.linalg.vector_norm
    return arrow.squeeze(-1).abs(), length(norm, dim=-1), length(projection, dim=-1)


def choose(arrow: torch.Tensor, score: torch.Tensor, member: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Each token's adapter [T], -1 where it has none, from `arrow` and `score` [T, n].

    `member` [T, n] says who may be chosen, `k` [T] how many pass Arrow's filter. Of equals the first is taken.
    """
    place = arrow.masked_fill(~member, -1).argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    kept = member & (place < k.unsqueeze(1))
    best = score.masked_fill(~kept, -1).argmax(dim=-1)
    return torch.where(kept.any(dim=-1), best, -1)


def route(
    z: torch.Tensor, w: torch.Tensor, member: torch.Tensor, k: torch.Tensor, projection: torch.Tensor
) -> torch.Tensor:
    """Each token's adapter [T], -1 where it has none: no shape depends on data, and nothing waits for a device.

    `z` [T, n, r] is A x of every adapter, `w` [n, 2r + 1, r] has their `constants`; `projection` [T] says by which
    score the token chooses.
    """
    arrow, norm, projected = scores(z, w)
    return choose(arrow, torch.where(projection.unsqueeze(1), projected, norm), member, k)

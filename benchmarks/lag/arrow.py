"""LAG for libraries much larger than k: Arrow's filter from a table, and A of those alone that pass it.

`lag.route` wants z = A x of all n adapters, 2·n·r·in operations a token. Here it is 2·in·(n + r·k). Shapes depend
on data: this is for a CPU. Below a hundred adapters it gains nothing, so the server does not choose this way.
"""

from __future__ import annotations

import torch


def table(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """v₁ of each adapter, [n, in], from `a` [n, r, in] and their `lag.constants` `w` [n, 2r + 1, r]."""
    return torch.bmm(w[:, :1], a).squeeze(1)


def candidates(x: torch.Tensor, v1: torch.Tensor, member: torch.Tensor, k: int) -> torch.Tensor:
    """The k members with the largest |v₁·x|, ascending [T, k], for `x` [T, in] and `member` [T, n].

    Of equals any; where a token has fewer than k members, others make up the number.
    """
    arrow = (x @ v1.T).abs().masked_fill(~member, -1)
    return arrow.topk(min(k, arrow.shape[1]), sorted=False).indices.sort(dim=1).values


def pick(
    x: torch.Tensor,
    v1: torch.Tensor,
    a: torch.Tensor,
    w: torch.Tensor,
    member: torch.Tensor,
    k: int,
    projection: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each token's adapter [T], -1 where it has none, and its A x [T, r]: what `lag.route` chooses.

    `v1` is the `table` of `a` and `w`; `member` [T, n] says who may be chosen, `projection` [T] by which score.
    """
    kept = candidates(x, v1, member, k)
    z, score = scored(x, a, w, kept, projection)
    best = score.masked_fill(~member.gather(1, kept), -1).max(dim=1)
    chosen = kept.gather(1, best.indices.unsqueeze(1)).squeeze(1)
    tokens = torch.arange(len(x), device=x.device)
    return torch.where(best.values >= 0, chosen, -1), z[tokens, best.indices]


def scored(
    x: torch.Tensor, a: torch.Tensor, w: torch.Tensor, kept: torch.Tensor, projection: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """z [T, k, r] and the score [T, k] of the candidates `kept` [T, k].

    One product for each adapter and all tokens that it is a candidate of: copies of the candidates' weights,
    [T, k, r, in], would be a little faster for a token or two, and many times slower for a prompt.
    """
    (tokens, k), rank = kept.shape, a.shape[1]
    order = kept.flatten().argsort(stable=True)
    by_adapter, of_score = x.new_empty(len(order), rank), x.new_empty(len(order), 2 * rank)
    first = 0
    for number, count in enumerate(kept.flatten().bincount(minlength=len(a)).tolist()):
        if count:
            part = slice(first, first := first + count)
            torch.mm(x[order[part] // k], a[number].T, out=by_adapter[part])
            torch.mm(by_adapter[part], w[number, 1:].T, out=of_score[part])
    norm, projected = of_score.unflatten(1, (2, rank)).norm(dim=2).unbind(1)
    z, score = torch.empty_like(by_adapter), torch.empty_like(norm)
    z[order], score[order] = by_adapter, torch.where(projection[order // k], projected, norm)
    return z.view(tokens, k, rank), score.view(tokens, k)

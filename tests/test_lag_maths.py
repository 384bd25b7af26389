"""The plugin's mathematics against references of a few lines, in dense float64."""

from __future__ import annotations

import pytest
import torch
from lora_select_vllm import lag

T, N, RANK, IN, OUT = 300, 5, 8, 48, 40
Wide = torch.float64


def adapters(seed: int, rank: int = RANK, count: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """A [count, rank, in] and B [count, out, rank], B uneven, as trained ones are."""
    random = torch.Generator().manual_seed(seed)
    a = torch.randn(count, rank, IN, generator=random)
    return a, torch.randn(count, OUT, rank, generator=random) * torch.logspace(0, -2, rank)


def states(seed: int = 7) -> torch.Tensor:
    return torch.randn(T, IN, generator=torch.Generator().manual_seed(seed))


def svd(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S and Vᵀ of B A, of its rank."""
    _, s, vt = torch.linalg.svd(b.to(Wide) @ a.to(Wide), full_matrices=False)
    return s[: len(a)], vt[: len(a)]


def dense(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """|v₁·x|, ‖S Vᵀ x‖ and ‖Vᵀ x‖, each [T]."""
    s, vt = svd(a, b)
    vx = x.to(Wide) @ vt.T
    return vx[:, 0].abs(), (vx * s).norm(dim=1), vx.norm(dim=1)


def inputs(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z [T, n, r] and the constants [n, 2r + 1, r], as the plugin has them."""
    constants = torch.stack([lag.constants(*one) for one in zip(a, b, strict=True)])
    return torch.einsum("ti,nri->tnr", x, a), constants


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_scores_are_those_of_the_dense_delta(rank: int) -> None:
    a, b, x = *adapters(1, rank), states()
    z, constants = inputs(a, b, x)
    assert constants.shape == (N, 2 * rank + 1, rank)
    assert constants.dtype == torch.float32
    for mine, theirs in zip(
        lag.scores(z, constants),
        zip(*(dense(x, *one) for one in zip(a, b, strict=True)), strict=True),
        strict=True,
    ):
        torch.testing.assert_close(mine.to(Wide), torch.stack(theirs, 1), rtol=1e-4, atol=1e-5)


def test_norm_is_the_length_of_the_delta_itself() -> None:
    a, b, x = *adapters(2), states()
    deltas = torch.einsum("nor,nri,ti->tno", b, a, x).norm(dim=-1)
    torch.testing.assert_close(lag.scores(*inputs(a, b, x))[1], deltas)


def test_a_rank_that_is_padded_or_not_full_changes_nothing() -> None:
    """A slot is as high as --max-lora-rank; and two equal rows of A are one direction, not two."""
    a, b, x = *adapters(3, rank=4), states()
    a[:, 3] = a[:, 2]
    padded = torch.cat([a, torch.zeros(N, 4, IN)], 1), torch.cat([b, torch.zeros(N, OUT, 4)], 2)
    plain, wide = (lag.scores(*inputs(*pair, x)) for pair in ((a, b), padded))
    for mine, theirs in zip(wide, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    s, vt = svd(a[0], b[0])
    assert s[3] < 1e-5 * s[0]
    torch.testing.assert_close(plain[2][:, 0].to(Wide), (x.to(Wide) @ vt[:3].T).norm(dim=1), rtol=1e-4, atol=1e-5)


def test_an_adapter_that_does_nothing_scores_nothing() -> None:
    a, b, x = *adapters(4), states()
    b[1] = 0
    assert all(bool((score[:, 1] == 0).all()) for score in lag.scores(*inputs(a, b, x)))


def slowly(arrow: torch.Tensor, score: torch.Tensor, member: torch.Tensor, k: int) -> int:
    """One row's choice: the paper's sentence."""
    candidates = [n for n in range(N) if member[n]]
    kept = sorted(candidates, key=lambda n: -float(arrow[n]))[:k]
    return max(kept, key=lambda n: float(score[n]), default=-1)


def test_route_chooses_row_by_row() -> None:
    """Rows of one batch differ in who may be chosen (some: nobody), in k (above the number: all), in the score."""
    a, b, x = *adapters(5), states()
    z, constants = inputs(a, b, x)
    random = torch.Generator().manual_seed(6)
    member = torch.rand(T, N, generator=random) < 0.6
    member[::10] = False
    k, projection = torch.randint(1, N + 2, (T,), generator=random), torch.rand(T, generator=random) < 0.5
    chosen = lag.route(z, constants, member, k, projection)
    arrow, norm, projected = (
        torch.stack(one, 1) for one in zip(*(dense(x, *pair) for pair in zip(a, b, strict=True)), strict=True)
    )
    score = torch.where(projection[:, None], projected, norm)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == [slowly(arrow[t], score[t], member[t], int(k[t])) for t in range(T)]
    assert bool((chosen[::10] == -1).all())
    assert len(set(chosen.tolist())) == N + 1  # the test would see a mistake about any of them


def test_k_and_score_matter() -> None:
    """k = 1 is Arrow alone, whatever the score; the two scores differ; equals go to the first."""
    a, b, x = *adapters(8), states()
    z, constants = inputs(a, b, x)

    def route(k: int, projection: bool) -> torch.Tensor:
        everyone = torch.ones(T, N, dtype=torch.bool)
        return lag.route(z, constants, everyone, torch.full((T,), k), torch.full((T,), projection))

    arrow, norm, projected = lag.scores(z, constants)
    assert torch.equal(route(1, False), arrow.argmax(1))
    assert torch.equal(route(1, True), route(1, False))
    assert torch.equal(route(N, False), norm.argmax(1))
    assert torch.equal(route(N, True), projected.argmax(1))
    for one, other in ((route(N, False), route(N, True)), (route(1, False), route(2, False))):
        assert (one != other).float().mean() > 0.1
    same = torch.ones(1, 3)
    assert lag.choose(same, same, torch.tensor([[False, True, True]]), torch.tensor([1])).tolist() == [1]

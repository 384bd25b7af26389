"""Arrow's tables choose what the scores of all adapters choose."""

from __future__ import annotations

import pytest
import torch
from lora_select_vllm.lag import constants, route

from benchmarks.lag.arrow import pick, table

INPUTS, OUTPUTS = 48, 40


def library(count: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A and the constants, in double precision: rounding decides nothing."""
    random = torch.Generator().manual_seed(count)
    a = torch.randn(count, rank, INPUTS, generator=random, dtype=torch.float64)
    b = torch.randn(count, OUTPUTS, rank, generator=random, dtype=torch.float64)
    return a, torch.stack([constants(*one).double() for one in zip(a, b, strict=True)])


@pytest.mark.parametrize("tokens", [1, 7, 200])
@pytest.mark.parametrize("k", [1, 3, 30])
def test_the_same_adapter_and_its_z(tokens: int, k: int) -> None:
    a, w = library(30, 4)
    random = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, INPUTS, generator=random, dtype=torch.float64)
    member = torch.rand(tokens, len(a), generator=random) < 0.6
    member[0] = False  # nobody may be chosen
    projection = torch.rand(tokens, generator=random) < 0.5
    z = torch.einsum("nri,ti->tnr", a, x)
    expected = route(z, w, member, torch.full((tokens,), k), projection)
    chosen, its = pick(x, table(a, w), a, w, member, k, projection)
    assert chosen.tolist() == expected.tolist()
    assert chosen[0] == -1
    some = chosen >= 0
    torch.testing.assert_close(its[some], z[some.nonzero().squeeze(1), chosen[some]])
    assert tokens == 1 or len(set(chosen.tolist())) > 3


def test_the_table_has_the_first_singular_vectors() -> None:
    a, _ = library(3, 4)
    b = torch.randn(OUTPUTS, 4, dtype=torch.float64)
    first = torch.linalg.svd(b @ a[0])[2][0]
    row = table(a[:1], constants(a[0], b).double()[None])[0]
    torch.testing.assert_close(row.abs(), first.abs(), atol=1e-6, rtol=1e-6)

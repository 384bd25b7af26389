"""Rows grouped by slot get what each row alone would get."""

from __future__ import annotations

import pytest
import torch
from lora_select_vllm.rows import FEW, grouped

SLOTS, RANK, WIDTH = 9, 4, 24


@pytest.mark.parametrize(
    "slots",
    [
        [-1],
        [3],
        [-1, 2, 2, -1, 5],
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [8, 7, 0, 0, 1, 1, 1, -1, 0, 3],
        [4] * (FEW + 1) + [5, 6, 3, -1] * 2,
        [1, 2] * (2 * FEW),
    ],
    ids=str,
)
def test_groups(slots: list[int]) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(len(slots), WIDTH, generator=random, dtype=torch.float64)
    a = torch.randn(SLOTS, RANK, WIDTH, generator=random, dtype=torch.float64)
    b = torch.randn(SLOTS, WIDTH, RANK, generator=random, dtype=torch.float64)
    b[sorted(set(range(SLOTS)) - set(slots))] = torch.nan  # of slots that nobody asks for, nothing is read
    expected = torch.stack(
        [b[slot] @ a[slot] @ row if slot >= 0 else row * 0 for slot, row in zip(slots, x, strict=True)]
    )
    y, again = torch.zeros_like(x), torch.zeros_like(x)
    groups = grouped(torch.tensor(slots))
    for group in groups:
        group.expand(y, group.shrink(x, a), b)
        z = torch.einsum("nri,ti->tnr", a, x)
        group.expand(again, z[group.rows, group.places()], b)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(again, expected)
    assert len(groups) <= len(set(slots) - {-1})


def test_rows_among_others() -> None:
    inner, y = grouped(torch.tensor([0, 1, 0, 1])), torch.zeros(7, 1)
    for outer in (slice(2, 6), torch.tensor([0, 2, 4, 6])):
        for group in inner:
            group.within(outer).expand(y, torch.ones(4, 1), torch.ones(2, 1, 1))
    assert y.flatten().tolist() == [1, 0, 2, 1, 2, 1, 1]

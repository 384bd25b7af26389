"""What LAG's trace keeps of a request, and how much of it is told."""

from __future__ import annotations

import pytest
import torch
from lora_select_vllm import trace
from lora_select_vllm.trace import Rows, Trace

LAYERS, NAMES = 3, ("legal", "medical")


def stepped(kept: Trace, request: str, position: int, chosen: list[list[int]], observed: bool = False) -> None:
    """One step of one request: `chosen` [layers][tokens], a projection in each layer."""
    count = len(chosen[0])
    observe = torch.ones(count, dtype=torch.bool) if observed else None
    kept.begin([Rows(request, position, count, NAMES, 0)], len(NAMES), "cpu")
    score, member = torch.ones(count, len(NAMES)), torch.ones(count, len(NAMES), dtype=torch.bool)
    for layer, each in enumerate(chosen):
        kept.count(torch.tensor(each), score, member, torch.zeros(len(NAMES), dtype=torch.int64), observe, layer)


def test_layers_are_told_from_a_position_on_as_far_as_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Trace(LAYERS)
    stepped(kept, "a", 0, [[0, 0], [0, 1], [1, 1]])
    stepped(kept, "a", 2, [[1], [1], [-1]])
    told = kept.of("a", 1)
    assert told is not None
    assert told["chosen"] == [0, 1, 1]
    assert told["share"] == pytest.approx([2 / 3, 2 / 3, 1])
    assert told["layers"] == [[[1, 0], [0, 1], [0, 1]], [[0, 1], [0, 1], [0, 0]]]
    monkeypatch.setattr(trace, "TOLD_CELLS", 2 * LAYERS * len(NAMES) - 1)
    assert (kept.of("a", 1) or {})["layers"] == told["layers"][:1]
    assert (kept.of("a") or {})["layers"] == []


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "KEPT_CELLS", 2 * trace.FEWEST * LAYERS * len(NAMES))
    kept = Trace(LAYERS)
    for request in "abc":
        stepped(kept, request, 0, [[0], [0], [0]])
    assert [kept.of(request) is not None for request in "abc"] == [False, True, True]


def test_what_a_preempted_request_computes_again_counts_once() -> None:
    kept = Trace(LAYERS)
    stepped(kept, "a", 0, [[0] * 100] * LAYERS, observed=True)
    stepped(kept, "a", 100, [[1] * 30] * LAYERS, observed=True)
    once = kept.of("a")
    stepped(kept, "a", 0, [[0] * 100 + [1] * 30] * LAYERS, observed=True)
    assert kept.of("a") == once
    assert once is not None
    assert once["shares"] == pytest.approx([130 * LAYERS / 2] * 2)

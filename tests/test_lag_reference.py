"""The dense reference itself: against transformers and PEFT, and its choices on paper-sized cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lag_models import ATTENTION, MLP, Adapter, Base
from tests.lag_reference import Delta, Lag, Reference, choose

TOKENS = list(range(3, 512, 17))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Base().write(tmp_path_factory.mktemp("reference") / "base", seed=1)


def theirs(model: Any, tokens: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What transformers' own code says, with its float32 islands (norms, softmax) made float64."""
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "float32", torch.float64)
        return torch.as_tensor(model.double()(torch.tensor([tokens])).logits[0].log_softmax(-1))


def loaded(base: Path) -> Any:
    from transformers import MistralForCausalLM

    return MistralForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()


def test_the_base_is_transformers_mistral(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Reference(base, {}).answer(TOKENS)
    assert (answer.log_probs - theirs(loaded(base), TOKENS, monkeypatch)).abs().max() < 1e-10


def test_a_fixed_adapter_is_pefts(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel

    described = Adapter(ATTENTION + MLP, rank=6, alpha=12, rslora=True, ranks={"v_proj": 3, "up_proj": 9})
    folder = described.write(tmp_path / "adapter", Base(), seed=2)
    model = PeftModel.from_pretrained(loaded(base), folder, autocast_adapter_dtype=False).eval()
    answer = Reference(base, {"one": folder}).answer(TOKENS, "one")
    assert (answer.log_probs - theirs(model, TOKENS, monkeypatch)).abs().max() < 1e-10


def test_a_library_of_one_is_that_adapter_and_two_libraries_add_up(base: Path, tmp_path: Path) -> None:
    reference = Reference(
        base,
        {
            "task": Adapter(ATTENTION).write(tmp_path / "task", Base(), seed=3),
            "knowledge": Adapter(MLP).write(tmp_path / "knowledge", Base(), seed=4),
        },
    )
    fixed, routed = (reference.answer(TOKENS, model) for model in ("task", Lag((("task",),), 1)))
    assert torch.equal(fixed.log_probs, routed.log_probs)
    both = reference.answer(TOKENS, Lag((("task",), ("knowledge",)), 1))
    either = reference.answer(TOKENS, Lag((("task", "knowledge"),), 2))
    assert torch.equal(both.log_probs, either.log_probs)  # they have no module in common
    assert (both.log_probs - fixed.log_probs).abs().max() > 1


def test_k_and_the_score_decide() -> None:
    """Singular values and right vectors by hand, and a token along the first axis, mostly."""
    x = torch.tensor([[1.0, 0.5, 0.1]], dtype=torch.float64)
    deltas = {0: made([0.1], [0]), 2: made([9.0, 1.0], [1, 0]), 5: made([3.0, 2.0], [2, 0])}
    assert [int(choose(deltas, k, "norm", x)[0]) for k in (1, 2, 3)] == [0, 2, 2]
    assert [int(choose(deltas, k, "projection", x)[0]) for k in (1, 2, 3)] == [0, 2, 2]
    x[0, 2] = 0.6  # the third's two values in sum are now larger, but not what its delta does
    assert [int(choose(deltas, k, "norm", x)[0]) for k in (1, 2, 3)] == [0, 5, 2]
    assert [int(choose(deltas, k, "projection", x)[0]) for k in (1, 2, 3)] == [0, 5, 5]
    assert float(choose(deltas, 3, "projection", x)[1]) == pytest.approx(1 - (1.25 / 1.36) ** 0.5)
    size = ((1 + 0.25 + 0.36) / 3) ** 0.5
    assert float(choose(deltas, 1, "projection", x)[1]) == pytest.approx((1 - 0.6) / size)  # only the filter chose


def made(s: list[float], axes: list[int]) -> Delta:
    rows = torch.eye(3, dtype=torch.float64)[axes]
    scaled = torch.tensor(s, dtype=torch.float64)
    return Delta(torch.eye(len(s), dtype=torch.float64) @ (scaled[:, None] * rows), scaled, rows)

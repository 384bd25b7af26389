"""LAG on two tensor-parallel workers."""

from __future__ import annotations

from pathlib import Path

from tests.lag_case import EXACT, LIBRARY_SLOTS, Case, off
from tests.lag_models import Base
from tests.lag_offline import offline
from tests.lag_reference import Lag, Model

PAIRS = (("legal", "medical"), ("finance", "sparse"), ("facts", "dates"), ("wide", "broad"))


def test_two_workers_are_exact(tmp_path: Path) -> None:
    """All virtual ones come in one step, and both workers have to give their members the same slots: what they sum
    before o_proj and down_proj are scored, they sum slot by slot."""
    asked: list[Model] = [None, "broad", *(Lag((pair,), 2) for pair in PAIRS)]
    case = Case.write(tmp_path, Base(), seed=1)
    batch = [case.asked(case.prompt(32 + n), model) for n, model in enumerate(asked)]
    got = offline(
        case.base, {"all": batch}, tmp_path, tensor_parallel_size=2, max_loras=len(asked), max_lora_rank=16,
        num_gpu_blocks_override=128, additional_config={"lora_select": {"library_slots": LIBRARY_SLOTS}},
    )["all"]  # fmt: skip
    nats = [off(case, one, model) for one, model in zip(got, asked, strict=True)]
    print(f"two workers: {max(nats):.1e} nats at most")
    assert max(nats) < EXACT, nats

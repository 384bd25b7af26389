"""LAG on real vLLM, offline: every log-probability of every position, against the dense float64 reference."""

from __future__ import annotations

import pytest

from tests.lag_case import EXACT, LIBRARY_SLOTS, POWER, SLOTS, Case, close, models, power
from tests.lag_models import Base
from tests.lag_offline import Got, offline

PROMPT = 32
ANSWER = 5
MODELS = models()
ARGS = {
    "max_loras": SLOTS, "max_cpu_loras": SLOTS, "max_lora_rank": 16, "max_num_seqs": 64,
    "max_num_batched_tokens": 1024, "num_gpu_blocks_override": 128,
    "additional_config": {"lora_select": {"library_slots": LIBRARY_SLOTS}},
}  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case.write(tmp_path_factory.mktemp("lag"), Base(), seed=1)


@pytest.fixture(scope="module")
def got(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Got], dict[str, Got]]:
    """Of each model, in a batch of all, with prompts of many lengths, and after that alone."""
    tokens = case.prompt(PROMPT + len(MODELS))
    asked = [case.asked(tokens[: PROMPT + n], model) for n, model in enumerate(MODELS.values())]
    together, *alone = offline(
        case.base, [asked, *([one] for one in asked)], ANSWER, tmp_path_factory.mktemp("run"), **ARGS
    )
    return dict(zip(MODELS, together, strict=True)), {
        name: one for name, (one,) in zip(MODELS, alone, strict=True)
    }


def test_a_wrong_pairing_would_show(case: Case) -> None:
    differences = power(case, case.prompt(PROMPT), MODELS)
    assert min(differences.values()) > POWER, sorted(differences.items(), key=lambda one: one[1])[:10]


@pytest.mark.parametrize("batch", [0, 1], ids=["in a batch of all", "alone"])
def test_every_model_is_exact(case: Case, got: tuple[dict[str, Got], dict[str, Got]], batch: int) -> None:
    off = {name: close(case, one, MODELS[name]) for name, one in got[batch].items()}
    print(f"nats: {max(off.values()):.1e} at most")
    assert max(off.values()) < EXACT, off

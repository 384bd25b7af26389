"""Adapters, LAG and 4-bit training on CUDA, of models that are made on the spot; skipped where there is no GPU.

All engines run side by side, each below a limit of its own: `python -m pytest tests/test_gpu.py -s` says one line
for each finding. With LORA_SELECT_GPU_TESTS=cpu the same runs without a GPU, and without graphs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import mean
from typing import Any

import pytest
import torch

from tests.lag_case import BOTH, KNOWLEDGE, LIBRARY_SLOTS, Case, apart, choices, power
from tests.lag_models import Base
from tests.lag_offline import Asked, Got, Started, begin
from tests.lag_reference import Lag, Model
from tests.test_training_run import ENVIRONMENT, Workshop, workshop
from tests.tiny_base import ROOT
from training.guard import checkpoints

ON_CPU = os.environ.get("LORA_SELECT_GPU_TESTS") == "cpu"
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available() and not ON_CPU, reason="needs a GPU"),
    pytest.mark.usefixtures("parts"),
]

LIMIT_S = 1500 if ON_CPU else 150
"""Of each part, counted from the start of all."""
RUNS: dict[str, dict[str, Any]] = {
    "bfloat16, eager": {"dtype": "bfloat16", "enforce_eager": True},
    "bfloat16, graphs": {"dtype": "bfloat16", "enforce_eager": ON_CPU},
    "float16, graphs": {"dtype": "bfloat16" if ON_CPU else "float16", "enforce_eager": ON_CPU},
}
GRAPHS = [name for name in RUNS if "graphs" in name]
TASK = ("legal", "medical", "sparse")
"""Without "finance": vLLM 0.26 knows no rank_pattern, and computes it otherwise."""
MODELS: dict[str, Model] = {
    "base": None, "legal": "legal", "wide": "wide", "broad": "broad",
    "k = 1": Lag((TASK,), 1), "k = 2": Lag((TASK,), 2), "k = n": Lag((TASK,), 3),
    "projection": Lag((BOTH,), 4, "projection"), "two libraries": Lag((TASK, KNOWLEDGE), 2),
}  # fmt: skip
LAG = {name: model for name, model in MODELS.items() if isinstance(model, Lag)}
ARGS: dict[str, Any] = {
    "max_loras": len(MODELS), "max_cpu_loras": 2 * len(MODELS), "max_lora_rank": 16, "max_num_seqs": 16,
    "max_num_batched_tokens": 512, "num_gpu_blocks_override": 256, "gpu_memory_utilization": 0.2,
    "kv_cache_memory_bytes": 1 << 28, "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64]},
    "additional_config": {"lora_select": {"library_slots": LIBRARY_SLOTS}},
}  # fmt: skip
SHAPE = Base(head_dim=64, mlp=512)
PROMPT, ANSWER = 40, 12
CLOSE = 1.0
"""Nats: two of MODELS are nearer than that at hardly any position; see the test of it."""
ALIKE = {"bfloat16": 0.25, "float16": 0.5}
"""The share of positions that stay CLOSE although rounding decides near ties, and all that follows goes by it:
0.43 on a CPU with bfloat16. Where a model is taken for another it is below 0.05."""


@dataclass(frozen=True)
class Parts:
    """All that was started, the models of it by dtype, and when."""

    cases: Mapping[str, Case]
    engines: Mapping[str, Started]
    shop: Workshop
    training: subprocess.Popen[bytes]
    began: float

    def case(self, run: str) -> Case:
        """Its base and adapters, as its dtype has them."""
        return self.cases[RUNS[run]["dtype"]]

    def got(self, run: str) -> dict[str, list[Got]]:
        """What that engine said."""
        return self.engines[run].got(self.left())

    def left(self) -> float:
        """Seconds, of the limit."""
        return max(1.0, self.began + LIMIT_S - time.monotonic())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    began, cases = time.monotonic(), {}
    engines: dict[str, Started] = {}
    shop = workshop(tmp_path_factory.mktemp("shop"))
    with contextlib.ExitStack() as ends:
        for dtype in dict.fromkeys(run["dtype"] for run in RUNS.values()):
            cases[dtype] = Case.write(tmp_path_factory.mktemp(dtype), SHAPE, seed=1, dtype=getattr(torch, dtype))
        for name, args in RUNS.items():
            if same := [other for other in engines if RUNS[other] == args]:
                engines[name] = engines[same[0]]
                continue
            case = cases[args["dtype"]]
            engines[name] = begin(case.base, _batches(case), tmp_path_factory.mktemp("run"), **ARGS | args)
            ends.callback(engines[name].stop)
        training = _training(shop)
        ends.callback(training.kill)
        yield Parts(cases, engines, shop, training, began)


def test_four_bit_training_is_killed_and_goes_on(parts: Parts) -> None:
    work = parts.shop.folder / "trained" / ".work" / "law"
    while not any(one.name == "checkpoint-10" for one in checkpoints(work)):
        assert parts.training.poll() is None, log_of(parts)
        assert parts.left() > 1, log_of(parts)
        time.sleep(0.02)
    parts.training.send_signal(signal.SIGKILL)
    parts.training.wait()
    done = _training(parts.shop, "--resume")
    try:
        done.wait(parts.left() + 30)
    finally:
        done.kill()
    assert done.returncode == 0, log_of(parts)
    run = parts.shop.made()
    told(
        "nf4 training, resumed", f"loss {run['losses'][0]:.2f} to {run['losses'][-1]:.2f} in {run['steps']} steps"
    )
    assert len(run["losses"]) == run["steps"]
    assert run["losses"][-1] < run["losses"][0] - 1
    assert run["comparison"]["better"]


def test_a_wrong_pairing_would_show(parts: Parts) -> None:
    """The comparisons below have power: models differ by more than they allow at nearly all positions."""
    case = parts.cases["bfloat16"]
    tokens = case.prompt(PROMPT)
    assert min(power(case, tokens, MODELS).values()) > 5 * CLOSE
    said = {name: case.reference.answer(tokens, model).log_probs for name, model in MODELS.items()}
    shares = {(one, other): close(said[one], said[other]) for one, other in combinations(said, 2)}
    assert max(shares.values()) < 0.05, shares


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("batch", ["alone", "all"])
def test_base_and_adapters_are_the_references(parts: Parts, run: str, batch: str) -> None:
    """Alone, and beside rows of everything else."""
    nats = {}
    for at, (name, model) in enumerate(MODELS.items()):
        if name not in LAG:
            got = picked(parts, run, batch, name, at)
            nats[name] = apart(parts.case(run).reference.answer(got.tokens, model).log_probs, got.log_probs)
    told(f"{run}: base and adapters, {batch}", f"{max(nats.values()):.3f} nats at most")
    assert max(nats.values()) < CLOSE, nats


def test_lag_chooses_as_the_reference_but_for_near_ties(parts: Parts) -> None:
    """The reference is made to choose as the engine did, and asked what it would have chosen there."""
    run, reference = "bfloat16, eager", parts.case("bfloat16, eager").reference
    made, margins, nats = 0, [0.0], []
    for name, model in LAG.items():
        got = picked(parts, run, "alone", name)
        said = choices(got, model)
        answer = reference.answer(got.tokens, model, said)
        nats.append(apart(answer.log_probs, got.log_probs))
        for place, own in answer.choices.items():
            made += len(own)
            margins += answer.margins[place][own != said[place]].tolist()
    told(f"{run}: LAG, its choices given", f"{max(nats):.3f} nats at most")
    told(f"{run}: LAG", f"{len(margins) - 1} of {made} choices are others, margin {max(margins):.3f} at most")
    assert max(nats) < CLOSE
    assert max(margins) < 0.1
    assert len(margins) < made / 20


@pytest.mark.parametrize("run", GRAPHS)
@pytest.mark.parametrize("batch", ["alone", "all"])
def test_lag_in_graphs_is_the_references(parts: Parts, run: str, batch: str) -> None:
    """At as many positions as rounding leaves; another adapter would be seen at all."""
    shares = {}
    for at, (name, model) in enumerate(MODELS.items()):
        if name in LAG:
            got = picked(parts, run, batch, name, at)
            shares[name] = close(parts.case(run).reference.answer(got.tokens, model).log_probs, got.log_probs)
    told(f"{run}: LAG, {batch}", f"{100 * mean(shares.values()):.0f} % of positions within {CLOSE} nat")
    assert mean(shares.values()) > ALIKE[RUNS[run]["dtype"]], shares


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("batch", ["alone", "all"])
def test_the_trace_is_what_was_chosen(parts: Parts, run: str, batch: str) -> None:
    """Who was chosen how often, by position and in all, is what the reference would choose."""
    worst, positions, right = 0.0, 0, 0
    for at, (name, model) in enumerate(MODELS.items()):
        if not isinstance(model, Lag):
            continue
        got = picked(parts, run, batch, name, at)
        wanted = votes(parts.case(run), got, model)
        assert got.used is not None, name
        members = {member: place for place, member in enumerate(got.used["names"]) if member}
        mine = torch.tensor([got.used["votes"][members[member]] for member in wanted])
        theirs = torch.stack([each.sum() for each in wanted.values()])
        assert sum(got.used["votes"]) == int(theirs.sum()), name
        worst = max(worst, float((mine - theirs).abs().sum() / 2 / theirs.sum()))
        best = [list(wanted)[place] for place in torch.stack(list(wanted.values())).argmax(0)]
        chosen = [got.used["names"][place] for place in got.used["chosen"]]
        positions, right = positions + len(best), right + sum(map(str.__eq__, best, chosen))
    told(f"{run}: the trace, {batch}", f"{100 * worst:.1f} % of votes are others at most, {right} of {positions}")
    assert worst < 0.1
    assert right > 0.8 * positions


@pytest.mark.parametrize("run", RUNS)
def test_the_base_does_not_notice_who_is_beside_it(parts: Parts, run: str) -> None:
    alone, beside = (picked(parts, run, batch, "base") for batch in ("alone", "all"))
    same = min(len(alone.tokens), len(beside.tokens), PROMPT)
    nats = apart(alone.log_probs[: same - 1], beside.log_probs[: same - 1])
    told(f"{run}: the base beside others", f"{nats:.3f} nats from itself alone")
    assert nats < CLOSE / 4


def _batches(case: Case) -> dict[str, list[Asked]]:
    """Every model alone, and all at once, with prompts of different lengths."""
    tokens = case.prompt(PROMPT + len(MODELS))
    asked = {
        name: case.asked(tokens[: PROMPT + n], model, answer=ANSWER)
        for n, (name, model) in enumerate(MODELS.items())
    }
    return {"all": list(asked.values())} | {name: [one] for name, one in asked.items()}


def picked(parts: Parts, run: str, batch: str, name: str, at: int = 0) -> Got:
    """A model's answer, alone or as one of all."""
    got = parts.got(run)
    return got["all"][at] if batch == "all" else got[name][0]


def close(one: torch.Tensor, other: torch.Tensor) -> float:
    """The share of positions of [T, vocabulary] at which nothing differs by CLOSE."""
    return float(((one[-len(other) :] - other).abs().amax(1) < CLOSE).float().mean())


def votes(case: Case, got: Got, model: Lag) -> dict[str, torch.Tensor]:
    """Of each member, the projections that choose it, [positions]."""
    found = {member: torch.zeros(len(got.tokens)) for library in model.libraries for member in library}
    for (_, number), chosen in case.reference.answer(got.tokens, model).choices.items():
        for place, member in enumerate(model.libraries[number]):
            found[member] += chosen == place
    return found


def told(what: str, found: str) -> None:
    print(f"\nGPU {what}: {found}", flush=True)


def _training(shop: Workshop, *more: str) -> subprocess.Popen[bytes]:
    settings = {"quantization": "nf4", "cpu": "true" if ON_CPU else "false", "dtype": "auto"}
    options = [part for name, value in settings.items() for part in ("--set", f"training.{name}={value}")]
    with (shop.folder / "log").open("a") as log:
        return subprocess.Popen(shop.command(*options, *more), cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log)


def log_of(parts: Parts) -> str:
    return (parts.shop.folder / "log").read_text()

"""LAG on real vLLM, offline: every log-probability of every position, against the dense float64 reference.

In float32, of which rounding may change no choice; and in bfloat16, where it may change those that are close.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from tests.lag_case import (
    EXACT,
    LIBRARY_SLOTS,
    POWER,
    Case,
    apart,
    choices,
    models,
    off,
    power,
)
from tests.lag_models import Base
from tests.lag_offline import Asked, Got, Started, begin
from tests.lag_reference import Lag, Model

PROMPT = 32
CONTEXT, BLOCK = 800, 128
MODELS = models()
LAG = {name: model for name, model in MODELS.items() if isinstance(model, Lag)}
# A step has as many different adapters as max_loras says, virtual ones included.
ARGS = {
    "max_loras": len(MODELS), "max_cpu_loras": len(MODELS), "max_lora_rank": 16, "max_num_seqs": 64,
    "max_num_batched_tokens": 512, "num_gpu_blocks_override": 128,
    "additional_config": {"lora_select": {"library_slots": LIBRARY_SLOTS}},
}  # fmt: skip
LONG: dict[str, Model] = {"a virtual one": LAG["both 2"], "an adapter": "wide"}


@dataclass(frozen=True)
class Run:
    """A case, and what vLLM said to it."""

    case: Case
    got: dict[str, list[Got]]

    def long(self, name: str) -> list[Got]:
        """Two questions about one context, one after the other, and the first again with all of its prompt."""
        return [self.got[f"{name}: {at}"][0] for at in range(3)]


@pytest.fixture(scope="module")
def exact_begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Started]]:
    """Of each model, in a batch of all (prompts of many lengths, cut into steps of 512 tokens) and alone."""
    case = Case.write(tmp_path_factory.mktemp("models"), Base(), seed=1)
    tokens = case.prompt(PROMPT + len(MODELS))
    asked = {name: case.asked(tokens[: PROMPT + n], model) for n, (name, model) in enumerate(MODELS.items())}
    batches = (
        {"all": list(asked.values())} | {name: [one] for name, one in asked.items()} | dict(about_context(case))
    )
    started = begin(case.base, batches, tmp_path_factory.mktemp("run"), **ARGS)
    yield case, started
    started.stop()


@pytest.fixture(scope="module")
def rounded_begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Started]]:
    """The same in bfloat16, alone."""
    case = Case.write(tmp_path_factory.mktemp("models"), Base(), seed=1, dtype=torch.bfloat16)
    asked = {name: [case.asked(case.prompt(PROMPT), model)] for name, model in MODELS.items()}
    started = begin(case.base, asked, tmp_path_factory.mktemp("run"), **ARGS | {"dtype": "bfloat16"})
    yield case, started
    started.stop()


@pytest.fixture(scope="module")
def begun(
    exact_begun: tuple[Case, Started], rounded_begun: tuple[Case, Started]
) -> dict[str, tuple[Case, Started]]:
    """Both at once: to start, an engine needs one core for half a minute."""
    return {"exact": exact_begun, "rounded": rounded_begun}


@pytest.fixture(scope="module")
def exact(begun: dict[str, tuple[Case, Started]]) -> Run:
    return run(*begun["exact"])


@pytest.fixture(scope="module")
def rounded(begun: dict[str, tuple[Case, Started]]) -> Run:
    return run(*begun["rounded"])


def run(case: Case, started: Started) -> Run:
    return Run(case, started.got())


def about_context(case: Case) -> Iterator[tuple[str, list[Asked]]]:
    context = case.prompt(CONTEXT, seed=2)
    for name, model in LONG.items():
        for at, (length, whole) in enumerate([(30, False), (40, False), (30, True)]):
            prompt = context + case.prompt(length, seed=3)
            yield f"{name}: {at}", [case.asked(prompt, model, prompt_log_probs=whole)]


def test_a_wrong_pairing_would_show(exact: Run) -> None:
    differences = power(exact.case, exact.case.prompt(PROMPT), MODELS)
    assert min(differences.values()) > POWER, min(differences.items(), key=lambda one: one[1])


def test_exact_in_a_batch_of_all(exact: Run) -> None:
    nats = {name: off(exact.case, one, MODELS[name]) for name, one in zip(MODELS, exact.got["all"], strict=True)}
    print(f"float32, a batch of all: {max(nats.values()):.1e} nats at most")
    assert max(nats.values()) < EXACT, nats


def test_exact_alone(exact: Run) -> None:
    nats = {name: off(exact.case, exact.got[name][0], model) for name, model in MODELS.items()}
    print(f"float32, alone: {max(nats.values()):.1e} nats at most")
    assert max(nats.values()) < EXACT, nats


@pytest.mark.parametrize("name", LAG)
def test_every_choice_is_the_references(exact: Run, name: str) -> None:
    got = exact.got[name][0]
    wanted, said = exact.case.reference.answer(got.tokens, LAG[name]).choices, choices(got, LAG[name])
    assert {place for place, one in said.items() if bool((one >= 0).any())} == set(wanted)
    assert all(torch.equal(said[place], one) for place, one in wanted.items())


@pytest.mark.parametrize("name", LONG)
def test_exact_with_a_long_context(exact: Run, name: str) -> None:
    """Longer than a step and than blocks of the prefix cache, computed and from the cache."""
    nats = [off(exact.case, got, LONG[name]) for got in exact.long(name)]
    print(f"{name}: {max(nats):.1e} nats at most")
    assert max(nats) < EXACT, nats


def test_a_context_is_computed_once(exact: Run) -> None:
    """For a virtual adapter as for any, and shared with nobody: not with one of its members."""
    for name in LONG:
        first, second, _ = exact.long(name)
        print(f"{name}: first token after {first.first_s:.3f} s, from the cache after {second.first_s:.3f} s")
        assert (first.cached, second.cached) == (0, CONTEXT // BLOCK * BLOCK)


def test_bfloat16_flips_near_ties_only(rounded: Run) -> None:
    """The reference is made to choose as the engine did, and asked what it would have chosen there."""
    reference, made, margins = rounded.case.reference, 0, [0.0]
    nats: dict[str, list[float]] = {"base and adapters": [], "LAG, its choices given": [], "LAG": []}
    for name, model in MODELS.items():
        (got,) = rounded.got[name]
        nats["LAG" if name in LAG else "base and adapters"].append(
            apart(reference.answer(got.tokens, model).log_probs, got.log_probs)
        )
        if isinstance(model, Lag):
            said = choices(got, model)
            answer = reference.answer(got.tokens, model, said)
            nats["LAG, its choices given"].append(apart(answer.log_probs, got.log_probs))
            for place, own in answer.choices.items():
                made += len(own)
                margins += answer.margins[place][own != said[place]].tolist()
    most = {kind: round(max(each), 2) for kind, each in nats.items()}
    print(f"bfloat16: {len(margins) - 1} of {made} choices flip, margin {max(margins):.3f} at most; nats: {most}")
    assert max(margins) < 0.1
    assert len(margins) < made / 20
    assert most["LAG, its choices given"] < 3 * most["base and adapters"]

"""What the tests of LAG ask: every kind of model that one batch can hold, of adapters that differ as they may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from lora_select_vllm.spec import virtual_path

from tests.lag_models import ATTENTION, MLP, Adapter, Base, name
from tests.lag_offline import Asked, Got
from tests.lag_reference import Lag, Model, Place, Reference

ADAPTERS = {
    "legal": Adapter(),
    "medical": Adapter(rank=6, alpha=16, rslora=True),
    "finance": Adapter(rank=10, alpha=20, ranks={"q_proj": 5, "o_proj": 12}),
    "sparse": Adapter(("q_proj", "v_proj"), layers=(0, 1, 3), missing=((1, "v_proj"),)),
    "facts": Adapter(MLP),
    "dates": Adapter(MLP, rank=7, alpha=14, rslora=True, missing=((2, "down_proj"),)),
    "names": Adapter(("up_proj", "down_proj"), rank=9, alpha=9, layers=(1, 2, 3)),
    "wide": Adapter(ATTENTION + MLP),
    "broad": Adapter(ATTENTION + MLP, rank=9, alpha=3, rslora=True, missing=((0, "k_proj"), (0, "gate_proj"))),
    "stranger": Adapter(ATTENTION + MLP),
    "visitor": Adapter(rank=4),
}
TASK = ("legal", "medical", "finance", "sparse")
KNOWLEDGE = ("facts", "dates", "names")
BOTH = ("wide", "sparse", "broad", "names")
LIBRARY_SLOTS = len({*TASK, *KNOWLEDGE, *BOTH})
"""None to spare: an adapter in the very last one is where vLLM's base rows went wrong."""

MODULES = tuple(name(layer, module) for layer in range(4) for module in ATTENTION + MLP)
"""In the order in which a token passes them."""

POWER = 5.0
"""Nats by which any two models differ somewhere: a mistake about which adapter, k, score or library would show."""
EXACT = 1e-4
"""Nats. The reference has float64, vLLM float32."""
CLEAR = 5e-6
"""Relative margin of the closest choice that float32 must still get right."""


def models(adapters: Sequence[str] = tuple(ADAPTERS)) -> dict[str, Model]:
    """The base, every adapter by itself, and LAG in all ways that differ; with k = 1 no score is asked."""
    found: dict[str, Model] = {"base": None}
    found.update((adapter, adapter) for adapter in adapters)
    for label, libraries in (("task", (TASK,)), ("both", (BOTH,)), ("two", (TASK, KNOWLEDGE))):
        found[f"{label} 1"] = Lag(libraries, 1)
        for k in (2, min(map(len, libraries))):
            found[f"{label} {k}"] = Lag(libraries, k)
            found[f"{label} {k} projection"] = Lag(libraries, k, "projection")
    return found


@dataclass(frozen=True)
class Case:
    """A base and the adapters in files, and the reference that has read them."""

    base: Path
    paths: Mapping[str, Path]
    reference: Reference
    vocabulary: int

    @classmethod
    def write(cls, folder: Path, base: Base, seed: int, dtype: torch.dtype = torch.float32) -> Case:
        paths = {
            name: adapter.write(folder / name, base, 100 * seed + number, dtype)
            for number, (name, adapter) in enumerate(ADAPTERS.items())
        }
        written = base.write(folder / "base", seed, dtype)
        return cls(written, paths, Reference(written, paths), base.vocabulary)

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        """Token ids, none of them special."""
        random = torch.Generator().manual_seed(seed)
        return [int(token) for token in torch.randint(3, self.vocabulary, (length,), generator=random)]

    def asked(self, tokens: list[int], model: Model, **how: Any) -> Asked:
        """A request to `model`."""
        return Asked(tokens, self.request(model), **how)

    def request(self, model: Model) -> tuple[str, int, str] | None:
        """Name, id and path of its LoRARequest."""
        if model is None:
            return None
        if isinstance(model, str):
            return model, 1 + list(ADAPTERS).index(model), str(self.paths[model])
        path = virtual_path(
            [[one for name in library if (one := self.request(name))] for library in model.libraries],
            model.k,
            model.score,
        )
        return f"lag {path}", 100 + crc32(path.encode()) % 10**6, path


def off(case: Case, got: Got, model: Model) -> float:
    """Nats between engine and reference, of all that was got; raises where a choice is too close to judge."""
    wanted = case.reference.answer(got.tokens, model)
    assert wanted.margin > CLEAR, f"{model}: a near tie of {wanted.margin:.1e}; take another seed"
    return apart(wanted.log_probs, got.log_probs)


def apart(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """The largest difference of log-probabilities [T, vocabulary], where `got` may lack the first positions."""
    assert got.shape[1] == wanted.shape[1]
    return float((wanted[-len(got) :] - got).abs().max())


def choices(got: Got, model: Lag) -> dict[Place, torch.Tensor]:
    """What the engine chose, as the reference says it; of a request that was alone."""
    table = torch.full((len(ADAPTERS) + 2,), -1)  # by adapter's id; the last is -1's
    for library in model.libraries:
        for place, member in enumerate(library):
            table[1 + list(ADAPTERS).index(member)] = place
    # The engine asks for as many libraries as any of its virtual adapters has.
    libraries = sum(map(len, got.choices)) // (len(got.tokens) * len(MODULES))
    places = [(module, number) for module in MODULES for number in range(libraries)]
    return {place: table[torch.cat(got.choices[at :: len(places)])] for at, place in enumerate(places)}


def power(case: Case, tokens: list[int], some: Mapping[str, Model]) -> dict[tuple[str, str], float]:
    """Of each two models, the largest difference in nats."""
    said = {name: case.reference.answer(tokens, model).log_probs for name, model in some.items()}
    return {(one, other): apart(said[one], said[other]) for one, other in combinations(said, 2)}

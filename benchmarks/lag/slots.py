"""Section `slots`, computed: how many adapters of a library fit beside the base, where vLLM's slots hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.lag.plan import Plan

BF16, FLOAT32 = 2, 4
USED = 0.9
"""Of a device's memory: vLLM's default."""

BESIDE_GB, KV_TOKENS = 1.0, 16_384
"""Activations and graphs; and tokens that the KV cache must hold at least."""


@dataclass(frozen=True)
class Model:
    """Its linear modules as (inputs, outputs), all of them adapted."""

    name: str
    parameters: int
    layers: int
    modules: tuple[tuple[int, int], ...]
    kv: int  # numbers of a token and layer

    def slot_mb(self, rank: int) -> float:
        """A and B of all modules, bf16."""
        return BF16 * rank * self.layers * sum(inputs + outputs for inputs, outputs in self.modules) / 1e6

    def constants_mb(self, rank: int) -> float:
        """What scores need besides: `lag.constants`, float32."""
        return FLOAT32 * self.layers * len(self.modules) * rank * (2 * rank + 1) / 1e6

    def copies_mb(self, rank: int) -> float:
        """On a CPU: A in float32."""
        return FLOAT32 * rank * self.layers * sum(inputs for inputs, _ in self.modules) / 1e6

    def kv_gb(self, tokens: int) -> float:
        """bf16."""
        return BF16 * tokens * self.layers * self.kv / 1e9


MISTRAL = Model(
    "Mistral-7B", 7_241_732_096, 32,
    ((4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336), (14336, 4096)),
    2 * 1024,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Something with memory. `on_cpu`: the host's own, where each adapter lies a second time as it was loaded."""

    name: str
    gb: float
    on_cpu: bool = False


PLACES = (Place("GPU of 24 GB", 24), Place("GPU of 80 GB", 80), Place("host of 64 GB, CPU", 64, True))


def section(_: Plan) -> dict[str, Any]:
    """Slots, whether max_loras or library_slots, at rank 16 beside the base in bf16."""
    rank = 16
    told = [asdict(place) | {"slots": fits(MISTRAL, place, rank)} for place in PLACES]
    return {
        "model": MISTRAL.name,
        "rank": rank,
        "base_gb": BF16 * MISTRAL.parameters / 1e9,
        "kv_tokens": KV_TOKENS,
        "kv_gb": MISTRAL.kv_gb(KV_TOKENS),
        "slot_mb": MISTRAL.slot_mb(rank),
        "library_slot_mb": {"GPU": each_mb(MISTRAL, rank, False), "CPU": each_mb(MISTRAL, rank, True)},
        "places": told,
    }


def each_mb(model: Model, rank: int, on_cpu: bool) -> float:
    """A member of a library."""
    slot = model.slot_mb(rank) + model.constants_mb(rank)
    return slot + (model.copies_mb(rank) + model.slot_mb(rank) if on_cpu else 0)


def fits(model: Model, place: Place, rank: int) -> int:
    """Members that the place holds beside base, KV cache and what else runs."""
    left = USED * place.gb - BF16 * model.parameters / 1e9 - BESIDE_GB - model.kv_gb(KV_TOKENS)
    return max(0, int(1e3 * left / each_mb(model, rank, place.on_cpu)))

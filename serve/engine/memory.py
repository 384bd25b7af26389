"""How much memory a stack needs, from the base's config.json and the headers of the files that are here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from adapters import Stack
from serve.engine.base import DTYPES, dtype_of
from serve.engine.base import size as base_size
from serve.engine.machine import Build, Machine
from serve.lint.files import CONFIG, WEIGHTS, here
from serve.lint.fit import targeted
from serve.lint.library import members, takes_all, virtual
from serve.lint.peft import LORA_RANKS
from serve.lint.shape import Shape, Width, shape
from serve.lint.weights import WeightsError, header

GIB = 1 << 30
LONG_REQUESTS, SEQUENCES = 16, 256
"""The cache that is made room for on a CPU, in requests of full length; and vLLM's own --max-num-seqs."""

DEFAULT_RANK = 16
"""What vLLM takes for --max-lora-rank when it is told none."""

FLOAT32 = 4
"""Bytes of a number that LAG chooses with: in 16 bits, near ties would flip."""

GPU_SHARE = 0.92
"""vLLM's own --gpu-memory-utilization."""


@dataclass(frozen=True)
class Room:
    """Places for adapters: in the engine's batches, in host memory, of what rank, and in libraries."""

    slots: int
    host: int
    rank: int
    library: int = 0


@dataclass(frozen=True)
class Estimate:
    """Bytes, but for `parameters`, `length` (tokens of the longest request) and `dtype`.

    `library`: what LAG chooses with, beside the slots of its adapters.
    """

    parameters: int
    dtype: str
    base: int
    slots: int
    host: int
    kv_token: int
    kv: int
    length: int
    library: int = 0

    @property
    def tokens(self) -> int:
        """What the cache holds."""
        return self.kv // self.kv_token

    @property
    def total(self) -> int:
        """Everything that is counted here; the process itself and its activations take about a GiB more."""
        return self.base + self.slots + self.library + self.host + self.kv


def room(stack: Stack, ranks: Mapping[str, int]) -> Room:
    """Derived where the stack sets nothing: one slot and one host place more than adapters, for an update.

    `ranks` has the rank of every adapter whose files are on this machine.
    """
    # vLLM counts models in one batch, virtual ones too; an update, beside the old version, needs one as well.
    slots = stack.engine.max_loras or len(stack.adapters) + max(1, virtual(stack))
    host = _number(stack.engine_args.get("max-cpu-loras")) or max(2 * len(stack.adapters), slots, 16)
    # Of an adapter that is still on the hub the rank is unknown: vLLM's own default is kept for it.
    least = DEFAULT_RANK if len(ranks) < len(stack.adapters) else 1
    need = max([least, *ranks.values()])
    rank = next((allowed for allowed in LORA_RANKS if allowed >= need), LORA_RANKS[-1])
    return Room(slots, host, _number(stack.engine_args.get("max-lora-rank")) or rank, _library(stack))


def estimate(stack: Stack, base: dict[str, Any], rooms: Room, build: Build, machine: Machine) -> Estimate | None:
    """None for a base whose architecture is not known here."""
    known = shape(base)
    if known is None:
        return None
    dtype = dtype_of(stack, base)
    size = DTYPES[dtype]
    lora = DTYPES.get(str(stack.engine_args.get("lora-dtype")), size)
    weights = base_size(stack, base, known)
    wrapped = _wrapped(stack, known)
    slots = (rooms.slots + rooms.library) * rooms.rank * lora * sum(map(sum, wrapped.values()))
    routed = [width for name, width in wrapped.items() if name.startswith(known.layer)]
    copied = build.cpu and lora < FLOAT32
    scores = rooms.library * sum(_scores(width, rooms.rank, copied) for width in routed)
    host = lora * sum(_values(stack, name, known, rooms.rank) for name in stack.adapters)
    token = known.kv_values * (size if str(stack.engine_args.get("kv-cache-dtype", "auto")) == "auto" else 1)
    length = _number(stack.engine_args.get("max-model-len")) or _longest(base)
    found = Estimate(known.parameters, dtype, weights, slots, host, token, 0, length, scores)
    return Estimate(**{**vars(found), "kv": _kv(stack, found, build, machine)})


def lines(found: Estimate, rooms: Room, adapters: int) -> Iterator[str]:
    """What `check` prints."""
    more = f" and {rooms.library} library slots" if rooms.library else ""
    yield (
        f"memory: base {size_of(found.base)} ({_count(found.parameters)} parameters, {found.dtype}), "
        f"{rooms.slots} adapter slots{more} of rank {rooms.rank} {size_of(found.slots)}, "
        f"{adapters} adapters in host memory {size_of(found.host)}"
    )
    if rooms.library:
        yield f"memory: what LAG chooses with, in {rooms.library} library slots, {size_of(found.library)}"
    yield (
        f"memory: KV cache {size_of(found.kv_token)} a token: {size_of(found.kv)} hold {found.tokens:,} tokens, "
        f"{found.tokens / found.length:.3g} requests of {found.length:,}"
    )


def shortage(stack: Stack, found: Estimate, build: Build, machine: Machine) -> str:
    """What does not fit, with the fix; "" where all does."""
    if found.tokens < found.length:
        return (
            f"memory: the KV cache holds {found.tokens:,} tokens, less than one request of {found.length:,}: "
            "lower engine.args.max-model-len, take a smaller or quantised base, or a machine with more memory"
        )
    there = machine.memory if build.cpu else _on_gpus(stack, machine)
    need = found.total if build.cpu else found.total - found.host
    if there and need > there:
        whose = "this machine" if build.cpu else "the GPU"
        return (
            f"memory: that is {size_of(need)}, and {whose} has {size_of(there)}: take a smaller or "
            "quantised base, or lower engine.max_loras or engine.args.max-model-len"
        )
    return ""


def _kv(stack: Stack, found: Estimate, build: Build, machine: Machine) -> int:
    """The cache's bytes: what the stack sets, what a GPU leaves, or on a CPU some requests of full length."""
    if gib := _number(stack.engine.env.get("VLLM_CPU_KVCACHE_SPACE")):
        return gib * GIB
    if told := _number(stack.engine_args.get("kv-cache-memory-bytes")):
        return told
    need = found.base + found.slots + found.library + GIB  # for activations and the process itself
    wanted = (
        min((_number(stack.engine_args.get("max-num-seqs")) or SEQUENCES), LONG_REQUESTS)
        * found.length
        * found.kv_token
    )
    if build.cpu:
        return min(wanted, max(0, machine.free - need - 2 * found.host) // 2)
    if machine.gpu:
        share = float(stack.engine_args.get("gpu-memory-utilization") or GPU_SHARE)
        return max(0, int(share * _on_gpus(stack, machine)) - need)
    return wanted


def _on_gpus(stack: Stack, machine: Machine) -> int:
    """The memory of all GPUs that the base is spread over, if they are like the first; 0 where none is seen."""
    spread = [_number(stack.engine_args.get(f"{how}-parallel-size")) or 1 for how in ("tensor", "pipeline")]
    return machine.gpu.memory * prod(spread) if machine.gpu else 0


def _number(told: object) -> int:
    """vLLM's human-readable numbers (utils/argparse_utils.py): 1000, 25.6k, 4G; 0 for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", str(told).strip())
    if match is None:
        return 0
    power = " kmgt".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[2].isupper() else 1000) ** power)


def _library(stack: Stack) -> int:
    """Places in libraries: an update is loaded beside its old version, and where all are in, one may be added."""
    inside = len(members(stack))
    return stack.engine.library_slots or (inside and inside + (2 if takes_all(stack) else 1))


def _wrapped(stack: Stack, known: Shape) -> dict[str, Width]:
    """The modules that get slots, with widths: a head or a projection as it is, and of packed ones every part."""
    targets = stack.engine_args.get("lora-target-modules")
    targets = [targets] if isinstance(targets, str) else targets
    return {name: width for name, width in known.adapted.items() if targets is None or targeted(name, targets)}


def _scores(width: Width, rank: int, copied: bool) -> int:
    """Bytes for one adapter of a library and one module: the constants, and where it is `copied`, A in float32."""
    return FLOAT32 * ((2 * rank + 1) * rank + (rank * width[0] if copied else 0))


def _values(stack: Stack, name: str, known: Shape, rank: int) -> int:
    """Numbers in one adapter; where its file is not here, as many as its highest rank may need."""
    folder = here(stack.adapter_ref(name), CONFIG)
    try:
        return sum(tensor.values for tensor in header(folder / WEIGHTS)) if folder else _most(known, rank)
    except WeightsError:
        return _most(known, rank)


def _most(known: Shape, rank: int) -> int:
    return rank * sum(map(sum, known.adapted.values()))


def _longest(base: Mapping[str, Any]) -> int:
    return int(base.get("max_position_embeddings") or base.get("n_positions") or base.get("seq_length") or 2048)


def _count(number: int) -> str:
    return f"{number / 1e9:.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"


def size_of(amount: float) -> str:
    """In three digits."""
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:,.0f} GiB" if amount >= 100 else f"{amount:.3g} GiB"

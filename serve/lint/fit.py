"""Does an adapter fit its base? Pure: names and shapes of its tensors against its config and the base's shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.lint.peft import rank_of
from serve.lint.shape import PACKED, Shape
from serve.lint.weights import Tensor

PREFIX = "base_model.model."
BASE_WEIGHTS = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
"""What PEFT saves beside an adapter of the embedding, and vLLM skips."""

HEADS = ("score", "classifier")


@dataclass
class Pair:
    """One module's A and B."""

    module: str
    sides: dict[str, Tensor] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The module's last name, which PEFT's target_modules and vLLM know it by."""
        return self.module.rpartition(".")[2]


def pairs(tensors: Iterable[Tensor]) -> tuple[dict[str, Pair], list[str]]:
    """The modules' pairs by name, and the tensors that vLLM would stumble over."""
    found: dict[str, Pair] = {}
    strange = []
    for tensor in tensors:
        if tensor.name.endswith(BASE_WEIGHTS):
            continue
        module, side = _parsed(tensor.name)
        if side:
            found.setdefault(module, Pair(module)).sides[side] = tensor
        else:
            strange.append(tensor.name)
    return found, strange


def misfits(
    tensors: Sequence[Tensor], config: dict[str, Any], base: Shape | None, targets: Sequence[str] | None
) -> Iterator[str]:
    """A line per kind of fault. `base` is None where its shape is unknown; `targets`: --lora-target-modules."""
    found, strange = pairs(tensors)
    if strange:
        yield _strange(strange)
    if not found:
        yield "it holds no LoRA weights"
    faults: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for pair in found.values():
        for kind, text in _faults(pair, config, base, targets):
            faults.setdefault(kind, text)
            counts[kind] += 1
    for kind, text in faults.items():
        yield text + (f" (and {counts[kind] - 1} modules like it)" if counts[kind] > 1 else "")


def _parsed(name: str) -> tuple[str, str]:
    """A tensor's module and "A" or "B", as vLLM's parse_fine_tuned_lora_name reads it; "" for neither."""
    parts = name.removeprefix(PREFIX).split(".")
    for side in ("A", "B"):
        if parts[-2:] == [f"lora_{side}", "weight"]:
            return ".".join(parts[:-2]), side
        if parts[-1] == f"lora_embedding_{side}":
            return ".".join(parts[:-1]), side
    return name, ""


def _strange(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    if names[0].rpartition(".")[0].rpartition(".")[2] in HEADS:
        return f"{names[0]}: a classification head, and the base generates text; save the adapter without it{more}"
    return f"{names[0]}: no weight that vLLM's LoRA knows; save the adapter's lora_A and lora_B only{more}"


def _faults(
    pair: Pair, config: dict[str, Any], base: Shape | None, targets: Sequence[str] | None
) -> Iterator[tuple[str, str]]:
    rank, name = rank_of(config, pair.module), pair.module
    missing = [side for side in "AB" if side not in pair.sides]
    if missing:
        yield "pair", f"{name}: no lora_{missing[0]}; save the adapter again"
        return
    a, b = pair.sides["A"].shape, pair.sides["B"].shape
    if len(a) != 2 or len(b) != 2:
        yield "matrix", f"{name}: lora_A and lora_B must be matrices (are {a} and {b})"
        return
    if not a[0] == b[1] == rank:
        yield (
            "rank",
            f"{name}: lora_A is {a} and lora_B {b}, which is not the config's rank {rank}; "
            "save config and weights together",
        )
    if targets is not None and not targeted(pair.module, targets):
        yield (
            "target",
            f"{name}: engine.args.lora-target-modules leaves out {pair.short}, whose weights vLLM would drop; "
            "add it there, or remove that key",
        )
    if base:
        yield from _against(pair, (a[1], b[0]), base)


def _against(pair: Pair, width: tuple[int, int], base: Shape) -> Iterator[tuple[str, str]]:
    there = base.adapted
    if pair.module in there:
        for side, what in enumerate(("reads", "writes")):
            if width[side] != there[pair.module][side]:
                yield what, f"its {pair.short} {what} {width[side]} values, the base's {there[pair.module][side]}"
        return
    if pair.module in (base.embedding[0], base.head):
        yield "embedding", f"{pair.module}: vLLM adapts no embedding and no head of this base; train without"
        return
    layer = pair.module.removeprefix(f"{base.layer}.").partition(".")[0]
    if pair.module.startswith(f"{base.layer}.") and layer.isdecimal() and int(layer) >= base.layers:
        yield "layer", f"it has a layer {layer}, the base has {base.layers} layers"
    else:
        yield f"module {pair.short}", f"{pair.module}: the base has no such module"


def targeted(module: str, targets: Sequence[str]) -> bool:
    """Whether --lora-target-modules lets a module have adapters: of packed modules one part stands for all."""
    short = module.rpartition(".")[2]
    together = [name for whole, parts in PACKED.items() if short in parts for name in (whole, *parts)]
    return any(name in targets for name in (short, module, *together))

"""The rules of vLLM's PEFTHelper (vllm/lora/peft_helper.py, 0.32) for an adapter_config.json, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for --max-lora-rank."""

PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Initialisations by name that leave the base as it was."""

MERGE = "merge it into a base of its own, or train without it"
FEATURES = {
    "use_dora": f"DoRA is not served; {MERGE}",
    "lora_bias": f"a bias of the adapter's own is not served; {MERGE}",
    "alora_invocation_tokens": "activated LoRA is not served; train a plain LoRA",
    "layer_replication": f"replicated layers are not served; {MERGE}",
    "use_bdlora": "block-diagonal LoRA is not served; train a plain LoRA",
    "use_qalora": "QALoRA is not served; train a plain LoRA",
    "trainable_token_indices": "trained tokens are not served; train without them",
}
"""Keys that must be empty, and what to do where one is not."""


def problems(config: dict[str, Any]) -> Iterator[str]:
    """What vLLM would refuse, or stumble over, whatever the base is."""
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}, only LORA is served"
        return
    yield from _malformed(config)
    for key, advice in FEATURES.items():
        if config.get(key):
            yield f"{key}: {config[key]!r}: {advice}"
    if (bias := config.get("bias", "none")) != "none":
        yield f"bias: {bias!r}: only none is served; {MERGE}"
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        yield (
            f"init_lora_weights: {init!r}: such an adapter fits a changed base only; save it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    saved = config.get("modules_to_save")
    if isinstance(saved, list) and (others := [name for name in saved if name not in ("classifier", "score")]):
        yield f"modules_to_save: {others}: whole modules are not served; train them as target_modules"


def _malformed(config: dict[str, Any]) -> Iterator[str]:
    if not is_rank(config.get("r")):
        yield f"r must be a whole number from 1 up (is {config.get('r')!r})"
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        yield f"lora_alpha must be a number (is {alpha!r})"
    if not isinstance(config.get("target_modules"), str | list):
        yield f"target_modules must be a list of names, or a pattern (is {config.get('target_modules')!r})"
    if not isinstance(config.get("modules_to_save") or [], list):
        yield f"modules_to_save must be a list of names, or null (is {config['modules_to_save']!r})"
    for key in ("rank_pattern", "alpha_pattern"):
        yield from _unreadable(key, config.get(key) or {})
    ranks = config.get("rank_pattern") or {}
    if not isinstance(ranks, dict) or not all(map(is_rank, ranks.values())):
        yield f"rank_pattern must map module names to ranks (is {ranks!r})"
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or not all(isinstance(value, int | float) for value in alphas.values()):
        yield f"alpha_pattern must map module names to numbers (is {alphas!r})"


def _unreadable(key: str, patterns: object) -> Iterator[str]:
    for pattern in patterns if isinstance(patterns, dict) else ():
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{key}: {pattern!r} is no regular expression: {error}"


def is_rank(value: object) -> bool:
    """A whole number from 1 up."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def largest_rank(config: dict[str, Any]) -> int:
    """What --max-lora-rank has to hold."""
    return int(max([config["r"], *(config.get("rank_pattern") or {}).values()]))


def rank_of(config: dict[str, Any], module: str) -> int:
    """A module's own rank: the first pattern that ends its name counts, as in PEFT's `get_pattern_key`."""
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return int(rank)
    return int(config["r"])

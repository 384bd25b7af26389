"""How many parameters an adapter trains, of how many: PEFT's own count, on a model without weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM


@dataclass(frozen=True)
class Counted:
    """Parameters; the adapter's own are part of the total."""

    trainable: int
    total: int

    def __str__(self) -> str:
        return f"{self.trainable:,} trainable of {self.total:,}, {self.trainable / self.total:.4%}"


def skeleton(config: dict[str, Any]) -> Any:
    """The model of a config.json on the meta device: modules without memory, in a fraction of a second.

    Raises ValueError for an architecture that transformers does not know.
    """
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers {transformers.__version__} knows no model of type {kind}")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def adapted(model: Any, lora: LoraConfig) -> Any:
    """A skeleton with its adapter. Raises ValueError where PEFT refuses `lora`."""
    # PEFT writes into the config that it is given: the name of its base, among others.
    own = copy.deepcopy(lora)
    own.base_model_name_or_path = None
    with torch.device("meta"):
        return get_peft_model(model, own)


def count(config: dict[str, Any], lora: LoraConfig) -> Counted:
    """The same numbers as of the real model, quantised or not."""
    return Counted(*adapted(skeleton(config), lora).get_nb_trainable_parameters())

"""How to train: the section `training` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adapters import Part

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(Part):
    """The defaults suit a 7B base; training/recipes/defaults.yaml says what each key means."""

    steps: Count | None = None
    epochs: Positive = 3
    batch_size: Count = 8
    accumulate: Count = 1
    learning_rate: Positive = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_length: int = Field(default=1024, ge=8)
    seed: int = Field(default=0, ge=0)
    quantization: Literal["nf4", "int8"] | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    checkpointing: bool = False
    save_steps: Count | None = None
    keep: Count = 2
    cpu: bool = False

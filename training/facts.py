"""`facts(run) -> Facts`: what a model card tells of run.json, whose other keys are no part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from adapters import Sampling, Tags
from training.manifest import HeldOut
from training.settings import Settings


class Known(BaseModel):
    """Some keys of a section of run.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Rows(Known):
    """`training.data.counts.Counts`."""

    source: str
    rows: int
    train: int
    held_out: int
    empty: int
    duplicates: int
    untaught: int
    filtered: int
    unsampled: int


class Told(Known):
    """The recipe's."""

    domain: str
    language: str
    tags: Tags
    system_prompt: str | None
    sampling: Sampling
    training: Settings


class Lora(Known):
    """PEFT's config."""

    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: str | list[str]

    @property
    def where(self) -> str:
        """The modules that it is added to."""
        return self.target_modules if isinstance(self.target_modules, str) else ", ".join(self.target_modules)


class Decides(Known):
    """`training.plan.Plan.decides`; `data` is the digest of all rows."""

    base: str
    data: str
    lora: Lora


class Parameters(Known):
    """`training.count.Counted`."""

    trainable: int
    total: int

    def __str__(self) -> str:
        return f"{self.trainable:,} trained, of {self.total:,}"


class Gpu(Known):
    """`record.origin.Gpu`."""

    name: str
    memory_gb: float


class Machine(Known):
    """`record.origin.Machine`."""

    cpu: str
    cores: int
    memory_gb: float
    gpus: tuple[Gpu, ...]

    def __str__(self) -> str:
        gpus = [f"{gpu.name} with {gpu.memory_gb:g} GB" for gpu in self.gpus]
        return ", ".join([*gpus, f"{self.cores} cores of {self.cpu}", f"{self.memory_gb:g} GB of memory"])


class MadeWith(Known):
    """`record.origin.Origin`."""

    command: str
    date: str
    commit: str
    changed_since: bool
    machine: Machine
    versions: Mapping[str, str]


class Facts(Known):
    """`overlong`: of the answers to train on, those that max_length or max_answer_tokens left out."""

    name: str
    label: str
    steps: int
    seconds: float
    losses: tuple[float, ...]
    comparison: HeldOut
    counts: Rows
    recipe: Told
    decides: Decides
    made_with: MadeWith
    parameters: Parameters | None = None
    overlong: int = 0

    @property
    def trained(self) -> int:
        """Answers that it learnt from."""
        return self.counts.train - self.overlong


def facts(run: Mapping[str, Any]) -> Facts:
    """Of the content of a run.json. Raises pydantic's ValidationError where something is missing."""
    return Facts.model_validate(run)

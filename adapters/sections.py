"""The sections of adapters.yaml: frozen, every default in one place, unknown keys refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.fields import (
    ALL,
    ClassifierName,
    Filled,
    Finite,
    Library,
    LimitsStorage,
    Listed,
    Name,
    Port,
    Probability,
    Scalar,
    Seconds,
    Sha256,
    Url,
)

ADMIN = "admin"
"""Whom `router.admin_key` belongs to."""


class Part(BaseModel):
    """One section of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(Part):
    model: str = Field(min_length=1)
    name: Name
    chat_template: str | None = None


class Engine(Part):
    port: Port = 8001
    url: Url | None = None
    max_loras: Annotated[int, Field(ge=1)] | None = None
    library_slots: Annotated[int, Field(ge=2)] | None = None
    liveness_s: Seconds = 120
    compare_peft: bool = False
    roots: tuple[str, ...] = ()
    args: Annotated[Mapping[str, Scalar | list[Scalar] | dict[str, Any] | None], Filled] = {}
    env: Annotated[Mapping[str, str], Filled] = {}


class Lag(Part):
    """A virtual model: for every token and projection one adapter of a library (LAG, arXiv 2507.05346).

    `k` null is 3, or the size of a smaller library. Several libraries are routed separately, and their deltas
    summed.
    """

    library: Library | None = None
    libraries: Mapping[Name, Library] = {}
    k: Annotated[int, Field(ge=1)] | None = None
    score: Literal["norm", "projection"] = "norm"

    @model_validator(mode="after")
    def _one_way(self) -> Lag:
        if self.library is None and not self.libraries:
            raise ValueError(
                "library: missing; give all or a list of adapters' names, or several of them as libraries"
            )
        if self.library is not None and self.libraries:
            raise ValueError("library: libraries is there as well; give one of the two")
        return self

    def members(self, adapters: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The names in each library, where `adapters` are all that there are."""
        named = self.libraries if self.library is None else {"library": self.library}
        return {name: tuple(adapters) if one == ALL else tuple(one) for name, one in named.items()}

    def key(self, library: str) -> str:
        """Where one of `members` stands in the file, below the model's name."""
        return "library" if self.library is not None else f"libraries.{library}"


class Calibration(Part):
    """What makes a classifier's scores probabilities, and how probable an adapter must be.

    `temperature` divides the logits (Guo et al., 2017); `threshold` null is `router.threshold`.
    """

    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    threshold: Probability | None = None


class Key(Part):
    """One client's API key, as its SHA-256, and what it may do; null is no limit."""

    sha256: Sha256
    adapters: tuple[Name, ...] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None


class Router(Part):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 8000
    workers: int = Field(default=1, ge=1, le=256)
    # choosing
    classifier: Annotated[tuple[ClassifierName, ...], Listed] = Field(default=("embedding",), min_length=1)
    model: str | Mapping[ClassifierName, str] | None = None
    threshold: Probability = 0.5
    unsure: Name = "base"
    calibration: Mapping[ClassifierName, Calibration] = {}
    system_weight: Probability = 0.1
    classify_timeout_s: Seconds = 2
    batch_wait_ms: float = Field(default=2, ge=0, le=1000)
    batch_size: int = Field(default=16, ge=1)
    cache_entries: int = Field(default=10_000, ge=0)
    # clients
    keys: Mapping[Name, Key] = {}
    admin_key: Sha256 | None = None
    limits_storage: LimitsStorage = "memory://"
    max_body_mb: float = Field(default=8, gt=0, allow_inf_nan=False)
    max_header_kb: float = Field(default=64, gt=0, allow_inf_nan=False)
    max_in_flight: int = Field(default=1024, ge=1)
    receive_timeout_s: Seconds = 30
    # the engine
    engine_wait_s: float = Field(default=5, ge=0, allow_inf_nan=False)
    answer_timeout_s: Seconds = 600
    drain_s: float = Field(default=5, ge=0, allow_inf_nan=False)
    # seen and kept
    stream_usage: bool = True
    decision_log: str | None = None
    decision_log_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 30
    log_prompts: bool = False
    otlp: str | None = Field(default=None, pattern=r"^https?://")
    response_cache_mb: float = Field(default=0, ge=0, allow_inf_nan=False)
    response_cache_s: Seconds = 600

    @model_validator(mode="after")
    def _classifiers_are_clear(self) -> Router:
        if len(set(self.classifier)) < len(self.classifier):
            raise ValueError(f"classifier names one twice: {', '.join(self.classifier)}")
        if isinstance(self.model, str) and len(self.classifier) > 1:
            raise ValueError(f"model: with several classifiers, say whose: {{{self.classifier[0]}: {self.model}}}")
        for name in {} if isinstance(self.model, str | None) else self.model:
            if name not in self.classifier:
                raise ValueError(f"model names {name}, and router.classifier only {', '.join(self.classifier)}")
        return self

    @model_validator(mode="after")
    def _keys_differ(self) -> Router:
        owners = {self.admin_key: "admin_key"}
        for name, key in self.keys.items():
            if name == ADMIN:
                raise ValueError(f'keys.{name}: the name "{name}" is the admin key\'s own; choose another')
            if key.sha256 in owners:
                raise ValueError(f"keys.{name}: the same key as {owners[key.sha256]}; make one for each")
            owners[key.sha256] = f"keys.{name}"
        return self

    def weights(self, classifier: ClassifierName) -> str | None:
        """The hub id or folder that `router.model` names for a classifier; None: its usual one."""
        return self.model if isinstance(self.model, str | None) else self.model.get(classifier)

    def calibrated(self, classifier: ClassifierName) -> Calibration:
        """A classifier's temperature and threshold, defaults filled in."""
        own = self.calibration.get(classifier, Calibration())
        return own if own.threshold is not None else own.model_copy(update={"threshold": self.threshold})


class Ui(Part):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 7860


class Sampling(Part):
    """An adapter's own sampling; null leaves it to the engine, which knows what else is wrong with a value."""

    frequency_penalty: Finite | None = None
    length_penalty: Finite | None = None
    logit_bias: Mapping[str, Finite] | None = None
    max_tokens: int | None = None
    min_p: Finite | None = None
    min_tokens: int | None = None
    presence_penalty: Finite | None = None
    repetition_penalty: Finite | None = None
    seed: int | None = None
    stop: Annotated[tuple[str, ...], Listed] | None = None
    stop_token_ids: tuple[int, ...] | None = None
    temperature: Finite | None = None
    top_k: int | None = None
    top_p: Finite | None = None


Tags = Mapping[Name, Annotated[tuple[Name, ...], Listed, Field(min_length=1)]]


class Adapter(Part):
    path: str = Field(min_length=1)
    versions: Mapping[Name, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    label: str | None = Field(default=None, pattern=r"\w")
    tags: Tags = {}
    system_prompt: str | None = Field(default=None, min_length=1)
    sampling: Sampling = Sampling()
    disclaimer: str | None = Field(default=None, pattern=r"\w", max_length=500)  # as a header, 6 KB at most
    allow_pickle: bool = False

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """What of `sampling` is set, as JSON has it."""
        return self.sampling.model_dump(mode="json", exclude_none=True)

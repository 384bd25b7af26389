"""The types of single values in adapters.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ALL = "all"

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=NAME)]
Scalar = str | int | float | bool
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
ClassifierName = Literal["embedding", "nli", "scoring", "spectral"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Listed = BeforeValidator(_listed)
"""One word stands for a list of one."""


def _like(pattern: str, problem: str) -> BeforeValidator:
    """For what may be a secret, which no message may repeat."""

    def check(value: object) -> object:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise PydanticCustomError("secret", problem)

    return BeforeValidator(check)


Sha256 = Annotated[
    str,
    _like(
        r"[0-9a-f]{64}",
        "no SHA-256, which is text of 64 of 0-9 and a-f; if it looks like the key itself, write the key's SHA-256 "
        "(python -m router key NAME prints both)",
    ),
]
LimitsStorage = Annotated[str, _like(r"(memory|rediss?)://.*", "must be memory://, redis://… or rediss://…")]


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise PydanticCustomError("url", "expected a server's address, such as http://127.0.0.1:8001")
    return value


Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"), AfterValidator(_url)]


def _filled(value: object) -> object:
    return {} if value is None else value


Filled = BeforeValidator(_filled)
"""A mapping whose keys are all commented out reads as null."""


def _all_or_names(value: object) -> object:
    listed = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if value != ALL and not listed:
        raise PydanticCustomError("library", "expected all, or a list of adapters' names")
    return value


Library = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_all_or_names)]
"""Checked before the union, which would only speak of the word that a list is not."""

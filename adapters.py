"""`load(path) -> Stack`: adapters.yaml, validated once into frozen types that everything else is given."""

from __future__ import annotations

import difflib
import errno
import re
import socket
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

AUTO = "auto"
RESERVED = (AUTO, "lag")
"""Model names with a meaning of their own: no base and no adapter may take them."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ConfigError(Exception):
    """A stack that cannot be started. One line: what, where, and what would be valid."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=NAME)]
Scalar = str | int | float | bool


class Ref(_Part):
    """A model or adapter: a folder on this machine, or a hub id."""

    name: str
    folder: Path | None = None

    def __str__(self) -> str:
        return str(self.folder or self.name)


class Base(_Part):
    model: str = Field(min_length=1)
    name: Name
    chat_template: str | None = None


class Engine(_Part):
    port: Port = 8001
    url: str | None = Field(default=None, pattern=r"^https?://")
    max_loras: Annotated[int, Field(ge=1)] | None = None
    args: Mapping[str, Scalar | list[Scalar] | dict[str, Any] | None] = {}
    env: Mapping[str, str] = {}


class Router(_Part):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 8000
    classifier: Literal["embedding", "nli"] = "embedding"
    model: str | None = None
    threshold: float = Field(default=0.5, ge=0, le=1)
    cache_entries: int = Field(default=10_000, ge=0)
    max_body_mb: float = Field(default=8, gt=0, allow_inf_nan=False)


class Ui(_Part):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 7860


class Adapter(_Part):
    path: str = Field(min_length=1)
    label: str = Field(pattern=r"\w")


class Stack(_Part):
    """One base, its adapters and the three processes around them, as adapters.yaml says."""

    file: Path
    base: Base
    engine: Engine = Engine()
    router: Router = Router()
    ui: Ui = Ui()
    adapters: Mapping[Name, Adapter] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Stack:
        for name in (self.base.name, *self.adapters):
            if name in RESERVED:
                raise ValueError(f'the name "{name}" is reserved; choose another')
        if self.base.name in self.adapters:
            raise ValueError(f'the base and an adapter are both named "{self.base.name}"')
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Stack:
        ports = {"router.port": self.router.port, "ui.port": self.ui.port}
        if self.engine.url is None:
            ports["engine.port"] = self.engine.port
        for first, second in combinations(ports, 2):
            if ports[first] == ports[second]:
                raise ValueError(f"{first} and {second} are both {ports[first]}")
        return self

    @property
    def engine_url(self) -> str:
        """Where the engine answers, without a trailing slash."""
        return (self.engine.url or f"http://127.0.0.1:{self.engine.port}").rstrip("/")

    @property
    def router_url(self) -> str:
        """Where the router answers, seen from this machine."""
        return _local_url(self.router.host, self.router.port)

    @property
    def ui_url(self) -> str:
        """Where the page is, seen from this machine."""
        return _local_url(self.ui.host, self.ui.port)

    @property
    def engine_args(self) -> dict[str, Any]:
        """`engine.args` as vLLM spells them, with dashes."""
        return {key.replace("_", "-"): value for key, value in self.engine.args.items()}

    def base_ref(self) -> Ref:
        """The base's folder or hub id. Raises ConfigError when it can be neither."""
        return self._ref(self.base.model, "base.model")

    def adapter_ref(self, name: str) -> Ref:
        """An adapter's folder or hub id. Raises ConfigError when it can be neither."""
        return self._ref(self.adapters[name].path, f"adapters.{name}.path")

    def chat_template(self) -> Path | None:
        """The template's file. Raises ConfigError when it is missing."""
        if self.base.chat_template is None:
            return None
        path = self._below(self.base.chat_template)
        if not path.is_file():
            raise self.error("base.chat_template", f"no such file: {path}")
        return path

    def error(self, key: str, problem: str) -> ConfigError:
        """A ConfigError that names this stack's file and the key."""
        return ConfigError(f"{self.file}: {key}: {problem}")

    def _below(self, text: str) -> Path:
        return (self.file.parent / Path(text).expanduser()).resolve()

    def _ref(self, text: str, key: str) -> Ref:
        folder = self._below(text)
        if folder.is_dir():
            return Ref(name=text, folder=folder)
        if text.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
            raise self.error(key, f"no such folder: {folder} (give a folder or a hub id, owner/name)")
        return Ref(name=text)


def _local_url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{host}:{port}"


def load(path: str | Path) -> Stack:
    """Read and validate a stack. Raises ConfigError in one line; touches no model and no network."""
    file = Path(path)
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; give one with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{file}: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a mapping with the keys {', '.join(_keys(Stack))}")
    if "file" in data:
        raise ConfigError(_unknown(file, ("file",)))
    try:
        # A section whose keys are all commented out reads as null: its defaults are meant.
        return Stack(file=file, **{key: part for key, part in data.items() if part is not None})
    except ValidationError as error:
        raise ConfigError(_explain(file, error)) from None


def check_port(stack: Stack, key: str, host: str, port: int) -> None:
    """Raises ConfigError when nobody could listen there now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        advice = "end what uses it, or set another port" if error.errno == errno.EADDRINUSE else "set another host"
        raise stack.error(key, f"{port} on {host}: {error.strerror}; {advice}") from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets the last of two equal keys win in silence; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'the key "{key.value}" stands twice', problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _keys(part: type[BaseModel]) -> list[str]:
    return [key for key in part.model_fields if key != "file"]


def _explain(file: Path, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = tuple(str(step) for step in first["loc"] if step != "[key]")
    if where[:2] == ("engine", "args"):
        where = where[:3]  # behind it stand the types that were tried, which are no keys
    if first["type"] == "extra_forbidden":
        return _unknown(file, where)
    if first["type"] == "missing":
        return f"{file}: {'.'.join(where)}: missing"
    message = first["msg"].removeprefix("Value error, ")
    if not where:
        return f"{file}: {message}"
    return f"{file}: {'.'.join(where)}: {message} (got {first['input']!r})"


def _unknown(file: Path, where: tuple[str, ...]) -> str:
    parts: dict[str, type[BaseModel]]
    parts = {"base": Base, "engine": Engine, "router": Router, "ui": Ui, "adapters": Adapter}
    valid = _keys(parts[where[0]] if len(where) > 1 else Stack)
    near = difflib.get_close_matches(where[-1], valid, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"valid here: {', '.join(valid)}"
    return f"{file}: {'.'.join(where)}: unknown key; {hint}"

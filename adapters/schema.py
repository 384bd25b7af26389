"""The whole of adapters.yaml, and where its folders and hub ids lead."""

from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from adapters.fields import Name
from adapters.sections import Adapter, Base, Engine, Lag, Part, Router, Ui

AUTO, LAG = "auto", "lag"
RESERVED = (AUTO, LAG)
"""Model names with a meaning of their own: no base and no adapter may take them."""

BASE = "base"
"""What `router.unsure` calls the base."""

LOCAL = (".", "/", "~")
"""A path that begins so is a folder, whether it is there or not."""

HUB_ID = re.compile(
    r"(?!.*\.\.)(?![^@]*--)(?![^@]{97})(\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?)(?<!\.git)(?:@(\w[\w./-]*))?", re.ASCII
)
"""owner/name as the hub allows it, perhaps @revision, which names a file of its cache: so never one of another
folder."""


class ConfigError(Exception):
    """A stack that cannot be started. One line: what, where, and what would be valid."""


class Ref(Part):
    """A model or adapter: a folder on this machine, or a hub id, perhaps at a revision."""

    name: str
    folder: Path | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return str(self.folder or "@".join(filter(None, (self.name, self.revision))))


def _named(value: object) -> object:
    """`lag: {library: …}` is the one model `lag`; several have a name each."""
    return {LAG: value} if isinstance(value, Mapping) and set(value) & set(Lag.model_fields) else value


class Stack(Part):
    """One base, its adapters and the three processes around them, as adapters.yaml says."""

    file: Path
    base: Base
    engine: Engine = Engine()
    router: Router = Router()
    ui: Ui = Ui()
    adapters: Mapping[Name, Adapter] = Field(min_length=1)
    lag: Annotated[Mapping[Name, Lag], BeforeValidator(_named)] = {}

    @model_validator(mode="after")
    def _names_differ(self) -> Stack:
        for name in (self.base.name, *self.adapters):
            if name in RESERVED:
                raise ValueError(f'the name "{name}" is reserved; choose another')
        if self.base.name in self.adapters:
            raise ValueError(f'the base and an adapter are both named "{self.base.name}"')
        for name in self.lag:
            if name in (AUTO, BASE, self.base.name, *self.adapters):
                raise ValueError(f'lag.{name}: the name "{name}" is taken; choose another')
        return self

    @model_validator(mode="after")
    def _libraries_fit(self) -> Stack:
        for name, lag in self.lag.items():
            libraries = lag.members(self.adapters)
            seen = Counter(member for members in libraries.values() for member in members)
            for library, members in libraries.items():
                where = f"lag.{name}.{lag.key(library)}"
                if missing := [member for member in members if member not in self.adapters]:
                    there = ", ".join(self.adapters)
                    raise ValueError(f'{where}: no adapter "{missing[0]}"; there are {there}')
                if len(members) < 2:
                    raise ValueError(f"{where}: a library of {len(members)}; it takes two adapters or more")
                if lag.k and lag.k > len(members):
                    raise ValueError(f"lag.{name}.k: {lag.k}, and {where} has {len(members)}; at most that many")
            if twice := [member for member, times in seen.items() if times > 1]:
                raise ValueError(f"lag.{name}: {twice[0]} is there twice; an adapter is in one library, once")
        if self.router.unsure not in (BASE, *self.lag):
            there = ", ".join((BASE, *self.lag))
            raise ValueError(f'router.unsure: no model "{self.router.unsure}" under lag; valid here: {there}')
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

    @model_validator(mode="after")
    def _keys_name_adapters(self) -> Stack:
        names = (*self.adapters, *self.lag)
        for name, key in self.router.keys.items():
            for adapter in key.adapters or ():
                if adapter not in names:
                    there = ", ".join(names)
                    raise ValueError(f'router.keys.{name}.adapters: no adapter "{adapter}"; there are {there}')
        return self

    @property
    def unsure(self) -> str | None:
        """The virtual model that answers for an unsure `auto`; None: the base does."""
        return None if self.router.unsure == BASE else self.router.unsure

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

    @property
    def parts(self) -> dict[str, Adapter]:
        """What an engine loads: every adapter, or each of its versions, as NAME@VERSION, from a folder below its
        path or at a revision of its hub id."""
        parts = {}
        for name, adapter in self.adapters.items():
            for version in adapter.versions:
                own = {"path": self._version_path(adapter.path, version), "versions": {}}
                parts[f"{name}@{version}"] = adapter.model_copy(update=own)
            if not adapter.versions:
                parts[name] = adapter
        return parts

    def expanded(self) -> Stack:
        """The same with `parts` for adapters: what `serve` counts, checks and loads."""
        return self.model_copy(update={"adapters": self.parts})

    def base_ref(self) -> Ref:
        """The base's folder or hub id. Raises ConfigError when it can be neither."""
        reference = self.ref(self.base.model, "base.model")
        if reference.revision:
            raise self.error("base.model", f"give the revision {reference.revision} as engine.args.revision")
        return reference

    def adapter_ref(self, name: str) -> Ref:
        """An adapter's folder or hub id. Raises ConfigError when it can be neither."""
        return self.ref(self.adapters[name].path, path_key(name))

    def allowed(self, path: str) -> None:
        """Raises ConfigError for an adapter that the admin routes may not load: outside `engine.roots`.

        A root is a folder, which stands for everything below it, or a hub id, which stands for itself.
        """
        reference = self.ref(path, "path")
        if reference.folder and self.rooted(reference.folder):
            return
        if reference.folder is None and {path, reference.name} & {*self.engine.roots}:
            return
        roots = ", ".join(self.engine.roots) or "none so far"
        raise self.error(
            "engine.roots", f"{path} is not below any of them ({roots}); add its folder or hub id there"
        )

    def rooted(self, folder: Path) -> bool:
        """Whether a folder, which need not be there yet, is below one of `engine.roots`."""
        return any(folder.is_relative_to(self.below(root)) for root in self.engine.roots)

    def chat_template(self) -> Path | None:
        """The template's file. Raises ConfigError when it is missing."""
        if self.base.chat_template is None:
            return None
        path = self.below(self.base.chat_template)
        if not path.is_file():
            raise self.error("base.chat_template", f"no such file: {path}")
        return path

    def error(self, key: str, problem: str) -> ConfigError:
        """A ConfigError that names this stack's file and the key."""
        return ConfigError(f"{self.file}: {key}: {problem}")

    def below(self, text: str) -> Path:
        """A path of the file as an absolute one: relative paths are relative to the file."""
        # Path.expanduser raises for a user who does not exist.
        return (self.file.parent / os.path.expanduser(text)).resolve()

    def ref(self, text: str, key: str) -> Ref:
        """The folder or hub id that stands under a key. Raises ConfigError when it can be neither."""
        folder = self.below(text)
        if folder.is_dir():
            return Ref(name=text, folder=folder)
        match = HUB_ID.fullmatch(text)
        if text.startswith(LOCAL) or match is None:
            raise self.error(key, f"no such folder: {folder} (give a folder or a hub id, owner/name)")
        return Ref(name=match[1], revision=match[2])

    def _version_path(self, path: str, version: str) -> str:
        local = path.startswith(LOCAL)
        if not local and HUB_ID.fullmatch(path) and not self.below(path).is_dir():
            return f"{path}@{version}"
        # "legal/v2" reads as a hub id where the folder is missing, "./legal/v2" never does.
        return os.path.join(path if local else f"./{path}", version)


def split(part: str) -> tuple[str, str]:
    """An adapter's name and version ("": it has none) from the name under which an engine has it."""
    name, _, version = part.partition("@")
    return name, version


def path_key(part: str) -> str:
    """The key of adapters.yaml that names its files."""
    name, version = split(part)
    return f"adapters.{name}.versions.{version}" if version else f"adapters.{name}.path"


def _local_url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

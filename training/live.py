"""`--live [WHERE]`: a trained adapter into the stack that runs, by its manager's socket or by its admin route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import RESERVED, ConfigError, ControlError, Manage, Stack, load, socket_file, split
from training.base import Base
from training.errors import Stopped
from training.recipe import Recipe
from training.register import check_free, check_stack, rank_of, said
from training.remote import ADMIN_KEY, API_KEY, LOOK_S, NO_ROUTER, Remote, key

RUN_DIR = ".run"
"""Where `python -m serve` keeps its socket when nobody names another folder."""

ADD_S = 900.0
"""A load and its self-test take seconds, and a router gives up before that (router.answer_timeout_s)."""

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Added:
    """An adapter as `python -m serve list` shows it."""

    name: str
    state: str
    version: str
    slot: int | None

    def line(self) -> str:
        """For people."""
        return f"{self.name}: {self.state}, version {self.version}, slot {'-' if self.slot is None else self.slot}"


@dataclass(frozen=True)
class Live:
    """A stack that runs, and how its adapters are asked for; `remote` is its router where a URL named it."""

    where: str
    ask: Callable[[str, dict[str, Any] | None], dict[str, Any]]
    remote: Remote | None = None

    def check(self, name: str, base: Base, recipe: Recipe, folder: Path) -> None:
        """Before the training: raises ConfigError unless the stack would take what `folder` will hold."""
        listed = self._listed()
        if any(split(one["name"])[0] == name != one["name"] for one in listed["adapters"]):
            raise self._error(f"{name} has versions there; train under another --name")
        stack = self._stack(listed)
        if stack is None:
            self._check_afar(listed, name, base, recipe)
            return
        check_stack(stack, name, base, recipe, listed.get("max_rank"))
        if stack.engine.url:
            raise stack.error("engine.url", "is set, and nothing can be loaded into an engine of somebody else")
        if self.remote and not stack.rooted(folder.resolve()):
            roots = ", ".join(stack.engine.roots) or "none so far"
            advice = "add it, or leave out the URL: --live alone asks the stack of this machine"
            raise stack.error("engine.roots", f"{folder} is not below any of them ({roots}); {advice}")

    def check_free(self, name: str, folder: Path) -> None:
        """Raises ConfigError where the stack's file has another adapter of that name."""
        if stack := self._stack(self._listed()):
            check_free(stack, name, folder)

    def complaints(self) -> list[str]:
        """What its virtual models say of the change; LAG goes on without an adapter that it has no slot for."""
        return [f"{one['name']}: {one['reason']}" for one in self._listed()["lag"] if one.get("reason")]

    def add(self, name: str, folder: Path, recipe: Recipe) -> Added:
        """Add the adapter, or update the one of that name; it serves when this returns. Raises Stopped."""
        try:
            answer = self.ask("POST", {"name": name, "path": str(folder.resolve()), **said(recipe)})
            (one,) = answer["adapters"]
            return Added(name, one["state"], one["version"], one["slot"])
        except ControlError as error:
            problem = str(error)
        except (KeyError, TypeError, ValueError):
            problem = f"what answers {NO_ROUTER}"
        raise Stopped(f"{self.where}: {name} is not added: {problem}; it is kept in {folder}")

    def router(self) -> Remote:
        """Its router, for a client. Raises ConfigError, so ask for it before the training."""
        url = self.remote.url if self.remote else load(self._listed()["file"]).router_url
        return Remote(url, key(API_KEY) or key(ADMIN_KEY))

    def _listed(self) -> dict[str, Any]:
        try:
            listed = self.ask("GET", None)
        except ControlError as error:
            raise self._error(str(error)) from None
        if not {"file", "adapters", "lag"} <= listed.keys():
            raise self._error(f"what answers {NO_ROUTER}")
        return listed

    def _stack(self, listed: dict[str, Any]) -> Stack | None:
        """As its file says; None where that is on another machine."""
        file = Path(listed["file"])
        if self.remote and not (self.remote.host in LOCAL and file.is_file()):
            return None
        return load(file)

    def _check_afar(self, listed: dict[str, Any], name: str, base: Base, recipe: Recipe) -> None:
        """What can be told without the stack's file: its base by name alone, where the training's has a name."""
        bases = self._bases()
        if name in (*RESERVED, *bases, *(one["name"] for one in listed["lag"])):
            raise self._error(f'the name "{name}" is taken; train under another --name')
        if base.stack and base.stack.base.name not in bases:
            raise self._error(f"its base is {', '.join(bases)}, and the adapter's is {base.stack.base.name}")
        if (limit := listed.get("max_rank")) and (rank := rank_of(recipe)) > limit:
            raise self._error(f"rank {rank} is above the running engine's --max-lora-rank, {limit}")

    def _bases(self) -> list[str]:
        assert self.remote
        try:
            models = self.remote.call("GET", "/v1/models")["data"]
            return [one["id"] for one in models if one["parent"] is None and one["id"] not in RESERVED]
        except ControlError as error:
            raise self._error(str(error)) from None
        except (KeyError, TypeError):
            raise self._error(f"what answers {NO_ROUTER}") from None

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"{self.where}: {problem}")


def find_live(where: str = RUN_DIR) -> Live:
    """The stack behind a router's URL, or that of a run folder here. Asks nobody yet. Raises ConfigError."""
    flag = f"--live {where}"
    if "://" not in where:
        file = socket_file(Path(where))
        return Live(flag, lambda method, wish: _by_socket(file, method, wish))
    if not (admin := key(ADMIN_KEY)):
        raise ConfigError(f"{flag}: needs the stack's admin key in the environment variable {ADMIN_KEY}")
    remote = Remote(where, admin)
    return Live(flag, lambda method, wish: _by_url(remote, method, wish), remote)


def _by_socket(file: Path, method: str, wish: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return dict(Manage(file).call(method, "/adapters", wish))
    except ControlError as error:
        advice = "; start one with python -m serve, or name its run folder or its router's URL"
        raise ControlError(error.status, f"{error}{'' if error.status else advice}") from None


def _by_url(remote: Remote, method: str, wish: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return remote.call(method, "/admin/adapters", wish, ADD_S if wish else LOOK_S)
    except ControlError as error:
        refused = error.status in (401, 403)
        raise ControlError(error.status, f"{ADMIN_KEY} is refused: {error}" if refused else str(error)) from None

"""Virtual adapters (LAG) follow their members: adapters.yaml names a library, and who of it serves is in it.

A virtual adapter is never changed: one of the new members is loaded beside it, the name moves, and the old one is
unloaded when its last request is done. Only then may a member go that it had.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adapters import Adapter, Lag, split
from serve.life.api import EngineError
from serve.life.board import Board
from serve.life.drain import Drains, Leaving
from serve.life.entry import Entry, State
from serve.life.loader import Loader, Recipe, Refused
from serve.life.table import Table

USUAL_K = 3

MOST_DEATHS = 2
"""Of the engine, while one version was loaded and tested: it is not tried again, until its members change."""


@dataclass(frozen=True)
class Virtual:
    """A model of `stack.lag` as it is now; `version` and `recipe` are of what answers."""

    name: str
    state: State = State.CONFIGURED
    reason: str = ""
    version: str = ""
    recipe: Recipe = field(default_factory=Recipe)

    def has(self, adapter: Leaving) -> bool:
        """Whether it needs that version to answer."""
        return bool(self.version) and "@".join(adapter) in self.recipe.members


class Libraries:
    """Methods are for the manager's thread, but for `all` and `lost`."""

    def __init__(
        self, board: Board, table: Table, loader: Loader, drains: Drains, say: Callable[[str], None]
    ) -> None:
        self._board, self._table, self._loader, self._drains, self._say = board, table, loader, drains, say
        self._lags: Mapping[str, Lag] = {}
        self._virtual: dict[str, Virtual] = {}
        self._held: list[Leaving] = []  # superseded, and still in a library whose update was refused
        self._behind: set[str] = set()  # whose last update was refused
        self._deaths: Counter[Leaving] = Counter()  # of engines, in the test of a version

    def all(self) -> tuple[Virtual, ...]:
        """In the file's order."""
        return tuple(self._virtual.values())

    @property
    def behind(self) -> bool:
        """Whether one of them would be another one, had the engine had room."""
        return bool(self._behind)

    def lost(self) -> None:
        """The engine has died, and holds nothing."""
        with self._board.changing():
            self._virtual = {name: Virtual(name) for name in self._lags}
            self._held, self._behind = [], set()

    def describe(self, lags: Mapping[str, Lag]) -> list[str]:
        """What adapters.yaml says of them now, for `follow` to do; the lines say what differs."""
        before, self._lags = self._lags, lags
        self._deaths.clear()
        with self._board.changing():
            self._virtual |= {name: Virtual(name) for name in lags if name not in self._virtual}
        gone = [f"{name}: removed" for name in before if name not in lags]
        return gone + [f"{name}: described anew" for name, lag in lags.items() if before.get(name) != lag]

    def follow(self, adapters: Mapping[str, Adapter]) -> tuple[list[Leaving], list[Leaving]]:
        """Make every library of those of the `adapters` that serve now.

        Returns the versions that lose their name, which is for the caller to withdraw, and those whose name has
        moved on.
        """
        dropped, moved = list[Leaving](), list[Leaving]()
        self._behind = set()
        for old in self.all():
            new = self._followed(old, adapters)
            if old.version and not new.version:
                dropped.append((old.name, old.version))
            elif old.version and old.version != new.version:
                moved.append((old.name, old.version))
            self._set(new)
        with self._board.changing():
            self._virtual = {name: one for name, one in self._virtual.items() if name in self._lags}
        return dropped, moved

    def let_go(self, old: Sequence[Leaving]) -> list[Leaving]:
        """Which of these superseded versions no library needs, and those of earlier calls."""
        waiting = [*self._held, *old]
        self._held = [one for one in waiting if any(virtual.has(one) for virtual in self.all())]
        return [one for one in waiting if one not in self._held]

    def _followed(self, old: Virtual, adapters: Mapping[str, Adapter]) -> Virtual:
        """The new one, the old one where that cannot be, or a broken one where the old one has lost a member."""
        name, started = old.name, time.monotonic()
        if name not in self._lags:
            return Virtual(name)
        recipe, left_out = self._recipe(self._lags[name], adapters)
        try:
            version = self._brought_up(old, recipe)
        except Exception as error:  # whatever it is, it is this model's alone
            self._behind.add(name)
            self._deaths[name, recipe.version] += isinstance(error, EngineError) and error.status == 0
            whole = all(self._serves(member) for member in old.recipe.members)
            keeps = old.version and whole and self._loader.keeps
            reason = f"the update was refused: {error}" if keeps else str(error)
            self._say(f"{name}: {reason if keeps else f'broken: {error}'}")
            return replace(old, reason=reason) if keeps else Virtual(name, State.BROKEN, reason)
        if version != old.version:
            self._say(f"{name}: serving version {version} after {time.monotonic() - started:.1f} s, {recipe}")
        return Virtual(name, State.SERVING, left_out, version, recipe)

    def _brought_up(self, old: Virtual, recipe: Recipe) -> str:
        """Its version, loaded, tested and named."""
        if self._deaths[old.name, recipe.version] >= MOST_DEATHS:
            raise Refused(f"the engine died {MOST_DEATHS} times in its test; python -m serve reload tries again")
        if recipe.version != old.version:
            self._set(replace(old, state=State.LOADING))
        version = self._loader.compose(old.name, recipe, old.version)
        if version != old.version:
            self._drains.cancel(old.name, version)
            self._loader.publish(old.name, version)
        return version

    def _recipe(self, lag: Lag, adapters: Mapping[str, Adapter]) -> tuple[Recipe, str]:
        """What the library is now, and who of those that the file names is not in it."""
        libraries, missing = [], []
        for names in lag.members(adapters).values():
            found = {name: self._member(name, adapters) for name in names}
            libraries.append(tuple(f"{one.name}@{one.version}" for one in found.values() if one))
            missing += [name for name, one in found.items() if one is None]
        k = min(lag.k or USUAL_K, *map(len, libraries))
        return Recipe(k, lag.score, tuple(libraries)), f"without {', '.join(missing)}" if missing else ""

    def _member(self, name: str, adapters: Mapping[str, Adapter]) -> Entry | None:
        """Of weighted versions the heaviest that serves."""
        entries = [one for one in self._table.of(name) if one.routable and not one.unrouted and name in adapters]
        return max(entries, key=lambda one: adapters[name].versions.get(split(one.name)[1], 0), default=None)

    def _serves(self, member: str) -> bool:
        entry = self._table.get(member.rpartition("@")[0])
        return entry is not None and entry.routable

    def _set(self, virtual: Virtual) -> None:
        with self._board.changing():
            self._virtual[virtual.name] = virtual

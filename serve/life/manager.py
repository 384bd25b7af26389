"""The life of adapters: configured, loading, serving, broken, draining. One thread changes them, one at a time.

Add = copy, lint, load, self-test, name. Update = the same for the new version beside the old one, then the name
moves, and the old one is unloaded when its last request is done. Remove = routers forget it, then the engine does,
drain, unload. What fails is `broken`, with the reason, and everything else serves on. Libraries follow.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from adapters import RESERVED, Adapter, Stack, label, load, split
from serve.life import report
from serve.life.api import EngineError
from serve.life.board import Board
from serve.life.drain import Drains, Leaving
from serve.life.entry import Entry, State
from serve.life.jobs import Jobs
from serve.life.libraries import MOST_DEATHS, Libraries
from serve.life.loader import Loader, Refused, Unknown
from serve.life.retest import retest
from serve.life.table import Table

TAKE_IN_S = 5.0
"""For routers to hear of a change; they wait for news all the time."""

FORWARD_S = 1.0
"""For requests that a router has just decided: vLLM looks a name up once more when it has tokenized the prompt."""

AGAIN_S = 1.0
"""Between two looks at an engine that somebody else runs, and that is not up."""


class Manager:
    """Owns the adapters of one engine. Public methods may be called from any thread."""

    def __init__(self, stack: Stack, loader: Loader, say: Callable[[str], None]) -> None:
        self._stack, self._loader, self._say = stack, loader, say
        self._adapters = dict(stack.adapters)
        self._words = report.words(stack)
        self._board = Board()
        self._table = Table(self._board, (Entry(name, part) for name, part in stack.parts.items()))
        self._engine, self._settled = 0, False  # which start of it; whether all of its adapters were tried
        self._drains = Drains(loader, say, stack.router.answer_timeout_s)
        self._libraries = Libraries(self._board, self._table, loader, self._drains, say)
        self._libraries.describe(stack.lag)
        self._proven: dict[str, str] = {}  # versions whose copies an engine that restarts is given again
        self._deaths: Counter[str] = Counter()  # of engines, in the test of an adapter
        self._jobs = Jobs("manager")

    @property
    def stack(self) -> Stack:
        """As its file was read last."""
        return self._stack

    def close(self) -> None:
        """Finish the job at hand and end."""
        self._jobs.close()

    def engine_ready(self) -> Future[None]:
        """The engine has (re)started and holds nothing: load everything."""
        engine = self._engine
        return self._jobs.do(lambda: self._load_all(engine))

    def engine_lost(self) -> None:
        """It has died: nothing is served until it is back."""
        with self._board.changing():
            self._engine += 1
            self._settled = False
        self._start_over()

    def add(self, name: str, adapter: Adapter) -> Future[None]:
        """Add it, or update the one of that name. The future fails with what stands in the way."""
        return self._jobs.do(lambda: self._added(name, adapter))

    def remove(self, name: str) -> Future[None]:
        """Stop routing, drain, unload. The future is set when it is unloaded; it fails with Unknown."""
        return self._jobs.do(lambda: self._remove(name))

    def test(self, name: str) -> Future[None]:
        """Its self-test once more; `listed` has the result. The future fails with Unknown, or what stands in the
        way."""
        return self._jobs.do(lambda: self._test(name))

    def reload(self) -> Future[list[str]]:
        """Read the stack's file again: add, update and remove what it changes. The lines say what was done.

        The future fails with ConfigError, and nothing has changed then, where the file is wrong.
        """
        return self._jobs.do(lambda: self._apply(load(self._stack.file)))

    def known(self, name: object) -> dict[str, Any]:
        """The keys of an adapter, as adapters.yaml has them; {} where there is none of that name."""
        adapter = self._adapters.get(str(name))
        return adapter.model_dump(mode="json", exclude_defaults=True) if adapter else {}

    def listed(self) -> dict[str, Any]:
        """All adapters and virtual ones, as JSON, with where their weights are as far as the engine says."""
        told = report.listed(self._table.all(), self._words, self._libraries.all(), self._loader.held())
        about = {"file": str(self._stack.file.resolve()), "max_rank": self._loader.max_rank}
        return {**about, "settled": self._settled, **told}

    def changes(self, after: int, router: str) -> dict[str, Any]:
        """What may be routed to, once it differs from the generation `after`, which `router` has taken in."""
        self._board.wait_for_news(after, router)
        with self._board.reading() as generation:
            told = report.routable(self._adapters, self._words, self._table.all())
            told = report.with_lag(told, self._stack.lag, self._libraries.all())
            return {"generation": generation, "settled": self._settled, **told}

    # In the manager's thread only, from here on.

    def _load_all(self, engine: int) -> None:
        """Those of `engine`, unless it has died meanwhile: then the next one's turn comes."""
        if engine != self._engine:
            return
        if not self._loader.up(self._stack.base.name):
            later = threading.Timer(AGAIN_S, lambda: self._jobs.do(lambda: self._load_all(engine)))
            later.daemon = True
            later.start()
            return
        with self._board.changing():
            self._settled = False
        self._start_over()
        for name, adapter in tuple(self._adapters.items()):
            if engine != self._engine:
                return
            try:
                self._add(name, adapter, self._words.get(name), again=True)
            except Exception as error:
                untried = [entry for entry in self._table.of(name) if entry.state is State.CONFIGURED]
                if engine == self._engine:
                    self._table.set(*(replace(one, state=State.BROKEN, reason=str(error)) for one in untried))
        if engine == self._engine:
            self._libraries.follow(self._adapters)
        with self._board.changing():
            self._settled = engine == self._engine
        versions = self._proven | {entry.name: entry.version for entry in self._table.all()}
        self._loader.sweep({f"{name}@{version}" for name, version in versions.items()})

    def _start_over(self) -> None:
        self._table.start_over(self._adapters)
        self._libraries.lost()

    def _added(self, name: str, adapter: Adapter) -> None:
        """By somebody's wish, which is a new chance."""
        for part in self._with(name, adapter).parts:
            if split(part)[0] == name:
                self._deaths.pop(part, None)
        self._add(name, adapter)

    def _add(self, name: str, adapter: Adapter, words: str | None = None, again: bool = False) -> None:
        """Every part of it is tried. Raises the first one's fault.

        `words` is its label, where it is known. `again`: with the files that were proven before, if any.
        """
        if name in (self._stack.base.name, *RESERVED, *self._stack.lag):
            raise Refused(f'the name "{name}" is taken; choose another')
        stack = self._with(name, adapter)
        words = words or label(stack, name).text
        parts = {part: one for part, one in stack.parts.items() if split(part)[0] == name}
        faults, old = [], list[Leaving]()
        for part, one in parts.items():
            try:
                old += self._bring_up(stack, part, one, self._proven.get(part, "") if again else "")
            except Exception as error:  # whatever it is, it is this adapter's alone
                faults.append(error)
        if not faults or name not in self._adapters:
            with self._board.changing():
                self._adapters[name], self._words[name] = adapter, words
            stay = parts
        else:  # a refused update: what came with it goes again
            stay = self._with(name, self._adapters[name]).parts
        left = [entry for entry in self._table.of(name) if entry.name not in stay]
        self._leave(left, old)
        self._board.wait_taken_in(TAKE_IN_S)
        if faults:
            raise faults[0]

    def _with(self, name: str, adapter: Adapter) -> Stack:
        return self._stack.model_copy(update={"adapters": {**self._adapters, name: adapter}})

    def _bring_up(self, stack: Stack, name: str, adapter: Adapter, proven: str) -> list[Leaving]:
        """A new adapter, or a new version of one that serves until the new one is proven; the old one, if any."""
        old = self._table.get(name)
        serving = old if old and old.routable else None
        self._table.set(replace(serving, state=State.LOADING) if serving else Entry(name, adapter, State.LOADING))
        started = time.monotonic()
        beside = self._table.beside(name)
        try:
            if self._deaths[name] >= MOST_DEATHS:
                advice = f"python -m serve add {split(name)[0]} tries again"
                raise Refused(f"the engine died {MOST_DEATHS} times in its test; {advice}")
            loaded = self._loader.load(stack.expanded(), name, serving.version if serving else "", beside, proven)
            if not (serving and serving.version == loaded.version):
                self._drains.cancel(name, loaded.version)
                self._loader.publish(name, loaded.version)
        except Exception as error:
            self._deaths[name] += isinstance(error, EngineError) and error.status == 0
            serving = serving if self._loader.keeps else None
            self._say(f"{name}: {'the update was refused' if serving else 'broken'}: {error}")
            broken = Entry(name, adapter, State.BROKEN, str(error))
            self._table.set(replace(serving, reason=f"the update was refused: {error}") if serving else broken)
            raise
        if serving and serving.version == loaded.version:
            self._table.set(replace(serving, adapter=adapter, reason=""))
            return []
        new = Entry(name, adapter, State.SERVING, loaded.note, loaded.version, loaded.rank, loaded.proof)
        self._table.set(replace(new, unrouted=loaded.unrouted, size_bytes=loaded.size_bytes))
        self._proven[name] = loaded.version
        self._deaths.pop(name, None)
        gap = f", {loaded.proof.differs:.3g} nats from the base" if loaded.proof else ""
        self._say(f"{name}: serving version {loaded.version} after {time.monotonic() - started:.1f} s{gap}")
        return [(name, serving.version)] if serving else []

    def _there(self, name: str) -> None:
        if name not in self._adapters:
            raise Unknown(f'there is no adapter "{name}"; there are {", ".join(self._adapters) or "none"}')

    def _test(self, name: str) -> None:
        self._there(name)
        retest(self._table, self._loader, self._stack, name)

    def _remove(self, name: str) -> Future[None]:
        self._there(name)
        with self._board.changing():
            del self._adapters[name]
        return self._leave(self._table.of(name))

    def _leave(self, entries: Sequence[Entry] = (), old: Sequence[Leaving] = ()) -> Future[None]:
        """Libraries and routers forget them, then the engine does, and what they still answer ends; `old` are
        versions that have lost their name already."""
        leaving = [replace(entry, state=State.DRAINING) for entry in entries]
        for entry in leaving:
            self._proven.pop(entry.name, None)
        self._table.set(*leaving)
        # Before all adapters have been tried, each of them would make every library anew.
        dropped, moved = self._libraries.follow(self._adapters) if self._settled else ([], [])
        loaded = dropped + [(entry.name, entry.version) for entry in leaving if entry.version]
        # In this order: an engine keeps a member as long as a virtual adapter has it.
        ending = [*moved, *loaded, *self._libraries.let_go(old)]
        if loaded:
            self._board.wait_taken_in(TAKE_IN_S)
            time.sleep(FORWARD_S)
        for name, _ in loaded:
            with suppress(EngineError):  # an engine that has just died holds nothing
                self._loader.withdraw(name)

        def gone() -> None:
            for name in self._table.drop(leaving):
                self._say(f"{name}: removed")
            if ending and self._libraries.behind:  # there may be room now
                self._jobs.do(self._leave)

        return self._drains.start(ending, gone)

    def _apply(self, stack: Stack) -> list[str]:
        """What an edited file changes. What was added at run time and never stood in it stays."""
        before = self._stack
        if taken := [name for name in stack.lag if name in self._adapters and name not in before.adapters]:
            raise Refused(f"lag.{taken[0]}: an adapter that was added at run time has that name; choose another")
        self._stack = before.model_copy(update={"adapters": stack.adapters, "lag": stack.lag})
        done = report.restarts(before, stack)
        for name in [name for name in before.adapters if name not in stack.adapters and name in self._adapters]:
            self._remove(name)
            done.append(f"{name}: removed")
        done += self._libraries.describe(stack.lag)
        self._leave()
        for name, adapter in stack.adapters.items():
            known = self._table.of(name)
            try:
                self._added(name, adapter)
            except Exception as error:
                done.append(f"{name}: refused: {error}")
            else:
                done += report.changed(name, known, self._table.of(name))
        return [*(done or ["nothing differs"]), *report.stays(self._adapters, stack)]

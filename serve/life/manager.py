"""The life of adapters: configured, loading, serving, broken, draining. One thread changes them, one at a time.

Add = copy -> lint -> load -> self-test -> name. Update = the same for the new version beside the old one, then the
name moves, and the old one is unloaded when its last request is done. Remove = the name goes, drain, unload. What
fails is `broken`, with the reason, and everything else serves on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from adapters import Adapter, ConfigError, Stack, label
from serve.life import prove
from serve.life.api import EngineApi, EngineError
from serve.life.versions import forget, snapshot
from serve.lint.check import lint_adapter

SEEN_S = 1.5
"""From a removal's announcement until every router has heard of it: they ask once a second."""

DRAIN_LOOK_S = 0.1


class State(StrEnum):
    """Of an adapter, as `serve list` and `GET /admin/adapters` say it."""

    CONFIGURED = "configured"
    LOADING = "loading"
    SERVING = "serving"
    BROKEN = "broken"
    DRAINING = "draining"


@dataclass(frozen=True)
class Entry:
    """One adapter as it is now. `adapter` is what adapters.yaml or a request says of it; `version` what serves."""

    name: str
    adapter: Adapter
    state: State = State.CONFIGURED
    reason: str = ""
    version: str = ""
    rank: int | None = None
    proof: prove.Proof | None = None


class Refused(Exception):
    """Why an adapter cannot be loaded; in one line."""


class Manager:
    """Owns the adapters of one engine. Public methods may be called from any thread."""

    def __init__(self, stack: Stack, run_dir: Path, say: Callable[[str], None]) -> None:
        self._stack, self._say = stack, say
        self._copies = run_dir / "adapters"
        self._engine = EngineApi(stack.engine_url)
        self._entries = {name: Entry(name, adapter) for name, adapter in stack.adapters.items()}
        self._generation = 0
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="manager", daemon=True)
        self._thread.start()

    @property
    def stack(self) -> Stack:
        """As it was read last."""
        return self._stack

    def close(self) -> None:
        """Finish the job at hand and end."""
        self._jobs.put(None)

    def engine_ready(self) -> Future[None]:
        """The engine has (re)started and holds nothing: load everything."""
        return self._do(self._load_all)

    def add(self, name: str, adapter: Adapter) -> Future[Entry]:
        """Add it, or update the one of that name. The future fails with Refused."""
        return self._do(lambda: self._add(name, adapter))

    def remove(self, name: str) -> Future[None]:
        """Stop routing, drain, unload. The future fails with Refused for an unknown one."""
        return self._do(lambda: self._remove(name))

    def apply(self, stack: Stack) -> Future[list[str]]:
        """Adapters as an edited file says: add, update and remove what differs. The lines say what was done."""
        return self._do(lambda: self._apply(stack))

    def listed(self) -> dict[str, Any]:
        """All adapters, as JSON, with where their weights are as far as the engine says."""
        try:
            held = {each["adapter"]: each for each in self._engine.adapters()["adapters"]}
        except EngineError:
            held = {}
        shown = [self._shown(entry, held.get(f"{entry.name}@{entry.version}", {})) for entry in self._all()]
        return {"generation": self._generation, "base": self._stack.base.name, "adapters": shown}

    # In the manager's thread only, from here on.

    def _work(self) -> None:
        while job := self._jobs.get():
            work, future = job
            try:
                future.set_result(work())
            except Exception as error:  # whoever asked is told; the thread lives on
                future.set_exception(error)

    def _do(self, work: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((work, future))
        return future

    def _all(self) -> list[Entry]:
        return list(self._entries.values())

    def _set(self, entry: Entry) -> Entry:
        self._entries[entry.name] = entry
        self._generation += 1
        return entry

    def _load_all(self) -> None:
        for entry in self._all():
            self._set(replace(entry, state=State.CONFIGURED, version="", proof=None, reason=""))
        for entry in self._all():
            try:
                self._bring_up(entry.name, entry.adapter)
            except Refused:
                continue  # it is `broken` and says why
        self._sweep()

    def _add(self, name: str, adapter: Adapter) -> Entry:
        if name in (self._stack.base.name, "auto", "lag"):
            raise Refused(f'"{name}" is taken; choose another name')
        return self._bring_up(name, adapter)

    def _bring_up(self, name: str, adapter: Adapter) -> Entry:
        """A new adapter, or a new version of one that serves until the new one is proven."""
        old = self._entries.get(name)
        serving = old if old and old.version else None
        self._set(replace(serving, state=State.LOADING) if serving else Entry(name, adapter, State.LOADING))
        started = time.monotonic()
        try:
            entry = self._proven(name, adapter, serving)
        except (Refused, EngineError, ConfigError, OSError) as error:
            self._say(f"{name}: broken: {error}")
            if serving:
                self._set(replace(serving, state=State.SERVING, reason=f"an update was refused: {error}"))
            else:
                self._set(Entry(name, adapter, State.BROKEN, str(error)))
            raise Refused(str(error)) from None
        self._set(entry)
        gap = f", {entry.proof.differs:.3g} nats from the base" if entry.proof else ""
        self._say(f"{name}: serving version {entry.version} after {time.monotonic() - started:.1f} s{gap}")
        if serving and serving.version != entry.version:
            self._drain(name, serving.version)
        return entry

    def _proven(self, name: str, adapter: Adapter, serving: Entry | None) -> Entry:
        """Copy, lint, load, test and name it. Raises what stops it, and leaves nothing loaded then."""
        stack = self._with(name, adapter)
        text = label(stack, name)
        copy = snapshot(stack.adapter_ref(name), name, self._copies)
        version = copy.name.rpartition("@")[2]
        entry = Entry(name, adapter.model_copy(update={"label": text.text}), State.SERVING, "", version)
        if serving and serving.version == version:
            return replace(entry, rank=serving.rank, proof=serving.proof)  # the same weights under other words
        findings, rank = lint_adapter(stack, name, copy)
        if errors := [finding.text for finding in findings if finding.error]:
            raise Refused("; ".join(errors))
        self._engine.load(copy.name, str(copy))
        try:
            self._engine.publish(copy.name, copy.name)  # a name that only the self-test knows
            beside = [other.name for other in self._all() if other.name != name and other.version]
            exact = stack.engine_args.get("dtype") in ("float", "float32")
            proof = prove.prove(self._engine, stack.base.name, copy.name, beside, exact)
            self._engine.withdraw(copy.name)
            if proof.problem:
                raise Refused(proof.problem)
            self._engine.publish(name, copy.name)
        except (Refused, EngineError):
            self._gone(copy.name)
            raise
        return replace(entry, rank=rank, proof=proof)

    def _remove(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is None:
            raise Refused(f'there is no adapter "{name}"; there are {", ".join(self._entries) or "none"}')
        self._set(replace(entry, state=State.DRAINING))
        if entry.version:
            time.sleep(SEEN_S)
            self._engine.withdraw(name)
            self._drain(name, entry.version)
        del self._entries[name]
        self._generation += 1
        self._say(f"{name}: removed")

    def _drain(self, name: str, version: str) -> None:
        """Wait for the last request of a version that nobody can ask for any more, and unload it."""
        deadline = time.monotonic() + self._stack.router.answer_timeout_s
        adapter = f"{name}@{version}"
        while True:
            try:
                self._engine.unload(adapter)
                break
            except EngineError as error:
                if error.status != 409 or time.monotonic() > deadline:
                    self._say(f"{name}: version {version} was not unloaded: {error}")
                    return
            time.sleep(DRAIN_LOOK_S)
        forget(self._copies / adapter)

    def _gone(self, adapter: str) -> None:
        """Undo a load; an engine that is dead has undone it already."""
        for undo in (self._engine.withdraw, self._engine.unload):
            try:
                undo(adapter)
            except EngineError:
                continue
        forget(self._copies / adapter)

    def _apply(self, stack: Stack) -> list[str]:
        """The difference between what is there and an edited file."""
        self._stack = stack
        done = []
        for name in [name for name in self._entries if name not in stack.adapters]:
            self._remove(name)
            done.append(f"{name}: removed")
        for name, adapter in stack.adapters.items():
            known = self._entries.get(name)
            try:
                entry = self._bring_up(name, adapter)
            except Refused as error:
                done.append(f"{name}: refused: {error}")
                continue
            if known is None or known.version != entry.version or known.adapter != entry.adapter:
                done.append(f"{name}: {'added' if known is None else 'updated'}, version {entry.version}")
        return done or ["nothing differs"]

    def _with(self, name: str, adapter: Adapter) -> Stack:
        return self._stack.model_copy(update={"adapters": {**self._stack.adapters, name: adapter}})

    def _sweep(self) -> None:
        """Remove copies that nothing uses: a killed supervisor's, or of an engine that died while it drained."""
        used = {f"{entry.name}@{entry.version}" for entry in self._all()}
        for copy in self._copies.glob("*@*"):
            if copy.name not in used:
                forget(copy)

    def _shown(self, entry: Entry, held: dict[str, Any]) -> dict[str, Any]:
        told = entry.adapter.model_dump(mode="json")
        proof = None if entry.proof is None else vars(entry.proof) | {}
        where = {key: held.get(key) for key in ("slot", "host", "pinned", "requests")}
        own = {"name": entry.name, "state": entry.state, "reason": entry.reason, "version": entry.version}
        return own | told | {"rank": entry.rank, "proof": proof} | where

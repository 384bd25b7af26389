"""Adapters of an engine that this supervisor started: copied, linted, loaded through `vllm_plugin`, proven."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from adapters import Stack
from serve.life.api import EngineApi, EngineError
from serve.life.loader import Loaded, Recipe, Refused
from serve.life.prove import Proof, answers, prove
from serve.life.reference import peft
from serve.life.versions import PART, forget, snapshot
from serve.lint.check import lint_adapter
from serve.lint.library import unrouted


class OwnEngine:
    """The Loader of an engine with `vllm_plugin`."""

    keeps = True

    def __init__(self, stack: Stack, run_dir: Path, rank_limit: int) -> None:
        """`rank_limit` is the engine's --max-lora-rank."""
        self._copies, self.max_rank = run_dir / "adapters", rank_limit
        self._api = EngineApi(stack.engine_url)
        self._longest_s = stack.router.answer_timeout_s
        self._left: dict[Path, float] = {}  # copies of what was unloaded, and since when
        self._files = threading.Lock()  # an adapter may come back while its last drain ends

    def up(self, base: str) -> bool:  # noqa: ARG002
        """The supervisor has waited for it."""
        return True

    def load(self, stack: Stack, name: str, known: str, beside: Sequence[str], proven: str) -> Loaded:
        """Copy, lint, load and test it. Raises OSError, too, where it cannot be copied."""
        with self._files:
            copy = self._copies / f"{name}@{proven}"
            if not (proven and copy.is_dir()):
                copy = snapshot(stack.adapter_ref(name), name, self._copies)
            self._left.pop(copy, None)
            version = copy.name.rpartition("@")[2]
            if version == known:
                return Loaded(version)
            findings, rank = lint_adapter(stack, name, copy, limit=self.max_rank)
            if errors := [finding.text for finding in findings if finding.error]:
                forget(copy)
                raise Refused("; ".join(errors))
            self._load(copy.name, lambda: self._api.load(copy.name, str(copy)))
        proof = self._tested(stack, copy, beside)
        size_bytes = sum(file.stat().st_size for file in copy.iterdir())
        return Loaded(version, rank, proof, unrouted=unrouted(copy), size_bytes=size_bytes)

    def test(self, stack: Stack, name: str, version: str, beside: Sequence[str]) -> Proof:
        """Under the name by which everybody asks for it."""
        return self._proof(stack, name, self._copies / f"{name}@{version}", beside)

    def compose(self, name: str, recipe: Recipe, known: str) -> str:
        """Load and test it. Raises Refused for a library that has lost too many."""
        if recipe.version == known:
            return known
        if small := [library for library in recipe.libraries if len(library) < 2]:
            raise Refused(
                f"a library takes two adapters that serve, and there is {small[0][0] if small[0] else 'none'}"
            )
        adapter = f"{name}@{recipe.version}"
        with self._files:
            self._load(adapter, lambda: self._api.compose(adapter, recipe.asked))
        try:
            answers(self._api, adapter)
        except EngineError:
            self._undo(adapter)
            raise
        return recipe.version

    def publish(self, name: str, version: str) -> None:
        """From now on `name` is answered by that version."""
        self._api.publish(name, f"{name}@{version}")
        self._api.withdraw(f"{name}@{version}")

    def withdraw(self, name: str) -> None:
        """From now on `name` is unknown to the engine."""
        self._api.withdraw(name)

    def unload(self, name: str, version: str) -> None:
        """Free slot and host memory, and disk a while later. Raises EngineError, with status 409 while it answers.

        A request that got the name long ago and was not counted yet would load it again: without its files, that
        ends the engine (vllm/v1/engine/core.py).
        """
        with self._files:
            self._api.unload(f"{name}@{version}")
            now = time.monotonic()
            self._left[self._copies / f"{name}@{version}"] = now
            for copy, since in tuple(self._left.items()):
                if now - since > self._longest_s:
                    forget(copy)
                    del self._left[copy]

    def held(self) -> dict[str, Any]:
        """Where each NAME@VERSION is: slot, host memory, pin, requests under way; {} while the engine is away."""
        try:
            return {each["adapter"]: each for each in self._api.adapters()["adapters"]}
        except EngineError:
            return {}

    def sweep(self, used: set[str]) -> None:
        """Remove copies other than these NAME@VERSION: of a supervisor or an engine that died meanwhile."""
        for copy in (*self._copies.glob("*@*"), *self._copies.glob(f"*{PART}")):
            if copy.name not in used:
                forget(copy)

    def _load(self, adapter: str, load: Callable[[], None]) -> None:
        """With a name that only the self-test knows, which keeps it from being unloaded meanwhile."""
        try:
            load()
        except EngineError as error:
            if error.status != 409:  # loaded already: it is still draining, and comes back
                forget(self._copies / adapter)
                raise
        self._api.publish(adapter, adapter)

    def _tested(self, stack: Stack, copy: Path, beside: Sequence[str]) -> Proof:
        try:
            proof = self._proof(stack, copy.name, copy, beside)
            if proof.problem:
                raise Refused(proof.problem)
        except Exception:  # whatever it is, nothing of the adapter stays in the engine
            self._undo(copy.name)
            raise
        return proof

    def _proof(self, stack: Stack, name: str, copy: Path, beside: Sequence[str]) -> Proof:
        args = stack.engine_args
        exact = args.get("dtype") in ("float", "float32") and not args.get("quantization")
        judge = partial(peft, str(stack.base_ref()), str(copy)) if stack.engine.compare_peft else None
        return prove(self._api, stack.base.name, name, beside, exact, judge)

    def _undo(self, adapter: str) -> None:
        """Of a load; an engine that is dead has undone it already."""
        with suppress(EngineError):
            self._api.withdraw(adapter)
        try:
            self._api.unload(adapter)
        except EngineError as error:
            if error.status == 409:  # it came back while it drained, and still answers: its drain ends it
                return
        forget(self._copies / adapter)

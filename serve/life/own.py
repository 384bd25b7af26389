"""Adapters of an engine that this supervisor started: copied, linted, loaded through `vllm_plugin`, proven."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from adapters import Stack
from serve.life.api import EngineApi, EngineError
from serve.life.loader import Loaded, Refused
from serve.life.prove import prove
from serve.life.reference import peft
from serve.life.versions import forget, snapshot
from serve.lint.check import lint_adapter


class OwnEngine:
    """The Loader of an engine with `vllm_plugin`."""

    def __init__(self, stack: Stack, run_dir: Path, rank_limit: int) -> None:
        """`rank_limit` is the engine's --max-lora-rank."""
        self._copies, self._rank_limit = run_dir / "adapters", rank_limit
        self._api = EngineApi(stack.engine_url)
        self._files = threading.Lock()  # an adapter may come back while its last drain ends

    def wait(self, base: str) -> None:
        """The supervisor has waited for it."""

    def load(self, stack: Stack, name: str, known: str, beside: Sequence[str]) -> Loaded:
        """Copy, lint, load and test it. Raises OSError, too, where it cannot be copied."""
        with self._files:
            copy = snapshot(stack.adapter_ref(name), name, self._copies)
            version = copy.name.rpartition("@")[2]
            if version == known:
                return Loaded(version)
            findings, rank = lint_adapter(stack, name, copy, limit=self._rank_limit)
            if errors := [finding.text for finding in findings if finding.error]:
                forget(copy)
                raise Refused("; ".join(errors))
            self._load(copy)
        try:
            self._api.publish(copy.name, copy.name)  # a name that only the self-test knows
            args = stack.engine_args
            exact = args.get("dtype") in ("float", "float32") and not args.get("quantization")
            judge = partial(peft, str(stack.base_ref()), str(copy)) if stack.engine.compare_peft else None
            proof = prove(self._api, stack.base.name, copy.name, beside, exact, judge)
            self._api.withdraw(copy.name)
            if proof.problem:
                raise Refused(proof.problem)
        except (Refused, EngineError):
            self._undo(copy.name)
            raise
        return Loaded(version, rank, proof)

    def publish(self, name: str, version: str) -> None:
        """From now on `name` is answered by that version."""
        self._api.publish(name, f"{name}@{version}")

    def withdraw(self, name: str) -> None:
        """From now on `name` is unknown to the engine."""
        self._api.withdraw(name)

    def unload(self, name: str, version: str) -> None:
        """Free slot, host memory and disk. Raises EngineError, with status 409 while it answers somebody."""
        with self._files:
            self._api.unload(f"{name}@{version}")
            forget(self._copies / f"{name}@{version}")

    def held(self) -> dict[str, Any]:
        """Where each NAME@VERSION is: slot, host memory, pin, requests under way; {} while the engine is away."""
        try:
            return {each["adapter"]: each for each in self._api.adapters()["adapters"]}
        except EngineError:
            return {}

    def sweep(self, used: set[str]) -> None:
        """Remove copies other than these NAME@VERSION: of a supervisor or an engine that died meanwhile."""
        for copy in self._copies.glob("*@*"):
            if copy.name not in used:
                forget(copy)

    def _load(self, copy: Path) -> None:
        try:
            self._api.load(copy.name, str(copy))
        except EngineError as error:
            if error.status != 409:  # loaded already: it is still draining, and comes back
                forget(copy)
                raise

    def _undo(self, adapter: str) -> None:
        """Of a load; an engine that is dead has undone it already."""
        undo: Callable[[str], None]
        for undo in (self._api.withdraw, self._api.unload):
            try:
                undo(adapter)
            except EngineError:
                continue
        forget(self._copies / adapter)

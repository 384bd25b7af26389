"""Where a training's results go, what an earlier one has left there, and that no two are under way at once."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import ConfigError
from training.guard import checkpoints
from training.plan import Plan, differences
from training.result import RUN

PLANNED = "plan.json"
"""What decides the weights of the checkpoints beside it."""


@dataclass(frozen=True)
class Places:
    """Where an adapter goes, and where its training keeps checkpoints and logs until then."""

    adapter: Path
    work: Path

    @classmethod
    def of(cls, out: Path, name: str) -> Places:
        """Below `out`; an adapter's own folder holds nothing but what serves it."""
        return cls(out / name, out / ".work" / name)

    @property
    def merged(self) -> Path:
        """Base and adapter as one model."""
        return self.adapter.with_name(f"{self.adapter.name}-merged")

    @property
    def gguf(self) -> Path:
        """The adapter for llama.cpp."""
        return self.adapter.with_name(f"{self.adapter.name}.gguf")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises ConfigError where a training of this name is under way, or nothing can be written."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            file = self.work.with_name(f"{self.work.name}.lock").open("w")
        except OSError as error:
            raise ConfigError(f"--out {self.adapter.parent}: cannot be written: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"{self.work}: another training of this name is under way") from None
            yield

    def begin(self, anew: bool) -> None:
        """A folder to work in, without what an earlier training left where this one begins anew."""
        if anew:
            shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)

    def publish(self, scratch: Path) -> None:
        """A whole adapter's folder takes the place of an earlier one; its checkpoints are not needed any more."""
        old = self.work / "replaced"
        shutil.rmtree(old, ignore_errors=True)
        if self.adapter.exists():
            self.adapter.rename(old)
        scratch.rename(self.adapter)
        for left in (old, *checkpoints(self.work)):
            shutil.rmtree(left, ignore_errors=True)


def finished(plan: Plan, places: Places, overwrite: bool) -> bool:
    """Whether this very adapter is there. Raises ConfigError where another one is, and none may take its place."""
    record = places.adapter / RUN
    if places.adapter.exists() and not record.is_file():
        raise ConfigError(f"{places.adapter}: exists, and no training wrote it; give another --name or --out")
    if overwrite or not record.is_file():
        return False
    if changed := differences(read(record).get("decides", {}), plan.decides):
        raise ConfigError(
            f"{places.adapter}: holds an adapter that was trained otherwise ({', '.join(changed)}); give another "
            "--name or --out, or --overwrite"
        )
    return True


def resumable(plan: Plan, places: Places, resume: bool, overwrite: bool) -> Path | None:
    """The checkpoint to go on from; None: from the start.

    Raises ConfigError where there is one and nobody said what to do with it, or where it is of another plan.
    """
    found = checkpoints(places.work)
    if overwrite or not found:
        return None
    if not resume:
        raise ConfigError(
            f"{found[-1]}: of a training that did not end; --resume goes on from there, --overwrite starts anew"
        )
    if changed := differences(read(places.work / PLANNED), plan.decides):
        raise ConfigError(
            f"{found[-1]}: of a training with other {', '.join(changed)}; --overwrite starts anew with these"
        )
    return found[-1]


def read(file: Path) -> dict[str, Any]:
    """A record of ours. Raises ConfigError."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}; --overwrite starts anew") from None

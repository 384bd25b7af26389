"""What ends a training: each cause told in one line, with the last good checkpoint and what to change."""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from training.errors import Stopped
from training.settings import Settings

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_WORDS = re.compile(
    r"no space left|disk quota exceeded|file too large|PytorchStreamWriter failed|os error 2[78]", re.I
)
NO_MEMORY_WORDS = re.compile(r"out of ?memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED", re.I)
SPENT = "seconds.txt"


class Guard(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Ends a training that has diverged, before its weights take a good checkpoint's place.

    It keeps the time, too: `before` are the seconds of the sessions that this one goes on from.
    """

    def __init__(self, folder: Path, before: float = 0.0) -> None:
        self._folder, self._before, self._began = folder, before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all sessions that the weights come from."""
        return self._before + time.monotonic() - self._began

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
        """A step's loss, and before a step is saved that of held-out rows with its new weights. Raises Stopped."""
        for key, of in (("loss", "the loss"), ("eval_loss", "the loss on held-out rows")):
            if key in logs and not math.isfinite(logs[key]):
                raise Stopped(
                    f"step {state.global_step}: {of} is {logs[key]}: the training diverged; "
                    f"{last_good(self._folder)}; a lower training.learning_rate, or more training.warmup, may help"
                )

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Note the time in the checkpoint."""
        (self._folder / f"checkpoint-{state.global_step}" / SPENT).write_text(f"{self.seconds:.1f}\n")


def spent(checkpoint: Path) -> float:
    """Seconds of training in a checkpoint; 0 where it was cut off before they were noted."""
    try:
        return float((checkpoint / SPENT).read_text())
    except (OSError, ValueError):
        return 0.0


def checkpoints(folder: Path) -> list[Path]:
    """Those that can be gone on from, the newest last: the Trainer writes its state after all else."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    return sorted(filter(_whole, found), key=_number)


def last_good(folder: Path) -> str:
    """In words, for a message."""
    found = checkpoints(folder)
    return f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"


@contextmanager
def explained(advice: str, folder: Path) -> Iterator[None]:
    """Raises Stopped where memory (then with `advice`) or the disk is full; all else is a fault of the code."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        if _is_memory(error):
            raise Stopped(f"out of memory: {advice}; {last_good(folder)}") from error
        if _is_disk(error):
            _drop_partial(folder)
            raise Stopped(
                f"no room left to write in {folder}: free some, and go on with --resume; {last_good(folder)}"
            ) from error
        raise


def lower(settings: Settings) -> str:
    """Which setting to change when memory is short, the cheapest first."""
    if settings.batch_size > 1:
        step = settings.batch_size * settings.accumulate
        # One that divides the step: --resume goes on only with steps of the same size.
        fewer = next(rows for rows in range(settings.batch_size // 2, 0, -1) if step % rows == 0)
        return (
            f"set training.batch_size to {fewer} (is {settings.batch_size}), and training.accumulate to "
            f"{step // fewer} for steps of the same size"
        )
    if not settings.checkpointing:
        return "set training.checkpointing to true"
    if settings.quantization != "nf4":
        return "set training.quantization to nf4"
    return f"set training.max_length below {settings.max_length}"


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _whole(checkpoint: Path) -> bool:
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _drop_partial(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        if not _whole(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(NO_MEMORY_WORDS.search(str(error)))
    )


def _is_disk(error: BaseException | None) -> bool:
    """safetensors and torch tell of a full disk in words alone."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in NO_ROOM) or NO_ROOM_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False

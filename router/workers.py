"""`router.workers: N`: processes that share one port, under a parent that replaces those that die."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from router.metrics import MULTIPROCESS

LOOK_S = 0.5
AGAIN_S = 1.0
"""Between a worker's death and its successor, so that one that cannot live does not spin."""

PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)

Worker = Callable[..., None]


class Workers:
    """Starts `count` times `target(*arguments)`, each in a process of its own, until a signal."""

    def __init__(self, count: int, target: Worker, arguments: tuple[object, ...], drain_s: float) -> None:
        self._count, self._target, self._arguments = count, target, arguments
        self._drain_s = drain_s
        self._stop = False
        self._context = multiprocessing.get_context("spawn")

    def run(self) -> None:
        """Returns when all have ended. SIGTERM and SIGINT are passed on, and each worker drains."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._record)
        with tempfile.TemporaryDirectory(prefix="lora-select-metrics-") as metrics:
            os.environ[MULTIPROCESS] = metrics
            workers = [self._start() for _ in range(self._count)]
            while not self._stop:
                wait([worker.sentinel for worker in workers], timeout=LOOK_S)
                workers = [worker if worker.is_alive() else self._replace(worker) for worker in workers]
            self._end(workers)

    def _record(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _start(self) -> SpawnProcess:
        worker = self._context.Process(target=_live, args=(os.getpid(), self._target, self._arguments))
        worker.start()
        return worker

    def _replace(self, dead: SpawnProcess) -> SpawnProcess:
        if self._stop:
            return dead
        log.error("worker %s ended with code %s; another is started", dead.pid, dead.exitcode)
        mark_process_dead(dead.pid)  # type: ignore[no-untyped-call]
        time.sleep(AGAIN_S)
        return self._start()

    def _end(self, workers: list[SpawnProcess]) -> None:
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + self._drain_s + 2
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()


def _live(parent: int, target: Worker, arguments: tuple[object, ...]) -> None:
    """A worker's life. It ends with its parent, even when that one is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    target(*arguments)

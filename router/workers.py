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

from prometheus_client.multiprocess import mark_process_dead

from adapters import ConfigError
from router.metrics import MULTIPROCESS
from router.stop import Stop

LOOK_S = 0.1
GRACE_S = 2.0
"""Beyond a worker's time to drain, for its last words."""

AGAIN_S = 1.0
"""Between a worker's death and its successor, so that one that cannot live does not spin."""

UNUSABLE = 2
"""Exit code of a worker, and then of all: the stack cannot work as written."""

PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)

Worker = Callable[..., None]


class Workers:
    """Starts `count` times `target(*arguments)`, each in a process of its own, until a signal or a ConfigError."""

    def __init__(self, count: int, target: Worker, arguments: tuple[object, ...], drain_s: float) -> None:
        self._count, self._target, self._arguments = count, target, arguments
        self._drain_s = drain_s
        self._stop = Stop()
        self._code = 0
        self._context = multiprocessing.get_context("spawn")

    def run(self) -> int:
        """The exit code, when all have ended. A signal is passed on and each worker drains; a second one kills."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        with tempfile.TemporaryDirectory(prefix="lora-select-metrics-") as metrics:
            os.environ[MULTIPROCESS] = metrics
            workers = [self._start() for _ in range(self._count)]
            while not self._over:
                wait([worker.sentinel for worker in workers], timeout=LOOK_S)
                workers = [worker if worker.is_alive() else self._replace(worker) for worker in workers]
            self._end(workers)
        return self._code

    @property
    def _over(self) -> bool:
        return bool(self._stop.wishes or self._code)

    def _start(self) -> SpawnProcess:
        worker = self._context.Process(target=_live, args=(os.getpid(), self._target, self._arguments))
        worker.start()
        return worker

    def _replace(self, dead: SpawnProcess) -> SpawnProcess:
        if dead.exitcode == UNUSABLE:
            self._code = UNUSABLE
        if self._over:
            return dead
        log.error("worker %s ended with code %s; another is started", dead.pid, dead.exitcode)
        mark_process_dead(dead.pid)  # type: ignore[no-untyped-call]
        time.sleep(AGAIN_S)
        return self._start()

    def _end(self, workers: list[SpawnProcess]) -> None:
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + self._drain_s + GRACE_S
        while (alive := [worker for worker in workers if worker.is_alive()]) and time.monotonic() < deadline:
            if self._stop.wishes > 1:
                break
            wait([worker.sentinel for worker in alive], timeout=LOOK_S)
        for worker in alive:
            worker.kill()
            worker.join()


def _live(parent: int, target: Worker, arguments: tuple[object, ...]) -> None:
    """A worker's life. It ends with its parent, even when that one is killed, and leaves to it the SIGINT that a
    terminal sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    try:
        target(*arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(UNUSABLE)

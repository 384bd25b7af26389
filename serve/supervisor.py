"""Starts the stack's processes, waits until all can be used, keeps them up, and ends them in order.

Signal handlers only record; one loop looks at every child and acts.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from types import FrameType

from serve.process import Child, Service, State

TICK_S = 0.1
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP is the terminal's end: the children have sessions of their own and would live on."""

REPORT_EVERY_S = 5.0


class StartError(Exception):
    """A child died before it was ready once: its name, exit code and last log lines."""


class Supervisor:
    """Runs services until a signal, or until a task given to `run` is done."""

    def __init__(self, services: Sequence[Service], say: Callable[[str], None]) -> None:
        self._children = [Child(service) for service in services]
        self._say = say
        self._stop = False
        self._reported = time.monotonic()

    def run(self, task: Callable[[], int] | None = None, stop_after_task: bool = False) -> int:
        """Start everything, and stop everything before returning; the exit code is the task's, or 0.

        `task` runs once in a thread when all are ready. Raises StartError when a child cannot start.
        """
        previous = {number: signal.signal(number, self._record) for number in STOPS}
        worker = _Worker(task) if task else None
        try:
            for child in self._children:
                child.start()
            while not self._stop:
                ready = self._step()
                if ready and worker and not worker.started:
                    worker.start()
                if worker and worker.code is not None and stop_after_task:
                    break
                time.sleep(TICK_S)
        finally:
            self._end()
            for number, handler in previous.items():
                signal.signal(number, handler)
        if worker and worker.code is None and stop_after_task:
            return 1  # stopped before the task was done
        return (worker.code or 0) if worker else 0

    def _record(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _step(self) -> bool:
        for child in self._children:
            before = child.state
            after = child.step(time.monotonic())
            if after is not before:
                self._tell(child)
        self._report_waiting()
        return all(child.state is State.READY for child in self._children)

    def _tell(self, child: Child) -> None:
        name, elapsed = child.service.name, time.monotonic() - child.started
        if child.state is State.READY:
            self._say(f"{name}: ready after {elapsed:.0f} s: {child.service.url}")
        elif child.state is State.WAITING:
            died = f"{name}: ended with code {child.exit_code}"
            if not child.was_ready:
                raise StartError(f"{died} before it was ready: {child.why()}")
            self._say(f"{died}; again in {child.restart_in_s:.0f} s (log: {child.service.log})")

    def _report_waiting(self) -> None:
        now = time.monotonic()
        if now - self._reported < REPORT_EVERY_S:
            return
        self._reported = now
        for child in self._children:
            if child.state is State.STARTING:
                self._say(f"waiting for the {child.service.name}: {now - child.started:.0f} s ({child.missing})")

    def _end(self) -> None:
        running = [child for child in self._children if child.state is not State.STOPPED]
        running.sort(key=lambda child: child.service.stop_rank)
        for _, group in groupby(running, key=lambda child: child.service.stop_rank):
            members = list(group)
            deadline = time.monotonic() + max(child.service.grace_s for child in members)
            for child in members:
                child.terminate()
            for child in members:
                child.reap(deadline)
        if running:
            self._say(f"stopped: {', '.join(child.service.name for child in running)}")


class _Worker(threading.Thread):
    """Runs a task beside the loop, so that a child that dies meanwhile is still looked after."""

    def __init__(self, task: Callable[[], int]) -> None:
        super().__init__(name="task", daemon=True)
        self._task = task
        self.code: int | None = None

    @property
    def started(self) -> bool:
        return self.ident is not None

    def run(self) -> None:
        code = 1
        try:
            code = self._task()
        finally:
            self.code = code

"""Starts the stack's processes, waits until all can be used, keeps them up, and ends them in order.

Signal handlers only record; one loop looks at every child and acts. SIGINT and SIGTERM stop. SIGHUP calls
`on_reload`; it stops where there is none, and where a terminal that stdin, stdout or stderr had is gone: that is
why it came, and the children have sessions of their own and would live on, unseen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from types import FrameType

from serve.process.child import Child, Service, State
from serve.process.procfs import adopt_orphans
from serve.process.watch import Watch

TICK_S = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REPORT_EVERY_S = 5.0


class StartError(Exception):
    """A child died before it was ready once: its name, its end and its last log lines."""


def _nothing(_name: str) -> None:
    pass


class Supervisor:
    """Runs services until a signal, or until a task given to `run` is done."""

    def __init__(
        self,
        services: Sequence[Service],
        say: Callable[[str], None],
        *,
        lock: int | None = None,
        on_ready: Callable[[str], None] = _nothing,
        on_death: Callable[[str], None] = _nothing,
        on_reload: Callable[[], None] | None = None,
    ) -> None:
        """`lock` is what `lock.hold` yields. The callbacks come from the loop: they may not block or raise.

        `on_ready` gets a service's name each time that it becomes ready, after restarts too; `on_death` when it
        has died or was found to hang, starting or ready.
        """
        self._children = [Child(service) for service in services]
        self._say_line = say
        self._lock = lock
        self._on_ready, self._on_death, self._on_reload = on_ready, on_death, on_reload
        self._stop = self._hangup = False
        self._terminals = [number for number in (0, 1, 2) if os.isatty(number)]
        self._reported = time.monotonic()

    def run(self, task: Callable[[], int] | None = None, stop_after_task: bool = False) -> int:
        """Start everything, and stop everything before returning; the exit code is the task's, or 0.

        `task` runs once in a thread when all are ready. Raises StartError when a child cannot start.
        """
        previous = {number: signal.signal(number, self._record) for number in SIGNALS}
        worker = _Worker(task) if task else None
        adopt_orphans(True)
        watch = Watch(self._lock)
        try:
            for child in self._children:
                self._start(child)
            self._tell_watch(watch)
            while not self._stop:
                ready = self._step()
                self._tell_watch(watch)
                if ready and worker and not worker.started:
                    worker.start()
                if worker and worker.code is not None and stop_after_task:
                    break
                time.sleep(TICK_S)
        finally:
            self._end()
            self._tell_watch(watch)
            watch.close()
            adopt_orphans(False)
            for number, handler in previous.items():
                signal.signal(number, handler)
        if worker and worker.code is None and stop_after_task:
            return 1  # stopped before the task was done
        return (worker.code or 0) if worker else 0

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._hangup = True
        else:
            self._stop = True

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            raise StartError(f"{child.service.name}: cannot be started: {error}") from error
        if child.log.problem:
            self._say(f"{child.service.name}: runs without a log: {child.service.log}: {child.log.problem}")

    def _step(self) -> bool:
        if self._hangup:
            self._hangup = False
            self._hung_up()
        for child in self._children:
            before = child.state
            after = child.step(time.monotonic())
            if after is not before:
                self._tell(child)
        self._report_waiting()
        return all(child.state is State.READY for child in self._children)

    def _hung_up(self) -> None:
        if self._on_reload is None or not all(os.isatty(number) for number in self._terminals):
            self._stop = True
        else:
            self._on_reload()

    def _tell(self, child: Child) -> None:
        name, elapsed = child.service.name, time.monotonic() - child.started
        if child.state is State.READY:
            self._say(f"{name}: ready after {elapsed:.0f} s: {child.service.url}")
            self._on_ready(name)
        elif child.state is State.STARTING and child.log.problem:
            self._say(f"{name}: runs without a log: {child.service.log}: {child.log.problem}")
        elif child.state is State.WAITING:
            if not child.was_ready:
                raise StartError(f"{name}: {child.ended} before it was ready: {child.log.why()}")
            self._say(f"{name}: {child.ended}; again in {child.restart_in_s:.0f} s (log: {child.service.log})")
            self._on_death(name)

    def _report_waiting(self) -> None:
        now = time.monotonic()
        if now - self._reported < REPORT_EVERY_S:
            return
        self._reported = now
        for child in self._children:
            if child.state is State.STARTING:
                self._say(f"waiting for the {child.service.name}: {now - child.started:.0f} s ({child.missing})")
            elif child.state is State.WAITING and child.missing:
                self._say(f"{child.service.name}: {child.missing}")

    def _tell_watch(self, watch: Watch) -> None:
        groups = [child.group for child in self._children if child.group is not None]
        watch.tell(groups, {inode for child in self._children for inode in child.shared})

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal, or a full disk: no reason to end the stack
            self._say_line(line)

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

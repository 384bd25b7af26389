"""A stack that runs: its processes under a supervisor, its adapters under a manager."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from adapters import ConfigError, Stack, socket_file
from serve.life.control import Control
from serve.life.loader import Loader
from serve.life.manager import Manager
from serve.life.own import OwnEngine
from serve.life.remote import RemoteEngine
from serve.process.lock import hold
from serve.process.supervisor import Supervisor
from serve.stack import Plan, check_ports

ENGINE = "engine"


def run(
    stack: Stack,
    planned: Plan,
    run_dir: Path,
    say: Callable[[str], None],
    task: Callable[[], int] | None = None,
    stop_after_task: bool = False,
) -> int:
    """Until a signal, or until `task` is done; the exit code.

    Raises ConfigError where something else runs in the folder or on a port, StartError where a process does not.
    """

    def quiet(line: str) -> None:
        with suppress(OSError):  # a terminal that is gone is no adapter's fault
            say(line)

    loader: Loader = RemoteEngine(stack)
    if planned.engine:
        loader = OwnEngine(stack, run_dir, planned.engine.room.rank)
    with hold(run_dir) as lock:
        check_ports(stack)
        manager = Manager(stack, loader, quiet)
        try:
            control = Control(socket_file(run_dir), manager)
        except OSError as error:
            raise ConfigError(f"--run-dir {run_dir}: no socket can be made there: {error}") from None
        if planned.engine is None:
            manager.engine_ready()

        def ready(name: str) -> None:
            if name == ENGINE:
                manager.engine_ready()

        def died(name: str) -> None:
            if name == ENGINE:
                manager.engine_lost()

        def reload() -> None:
            manager.reload().add_done_callback(lambda done: _tell(done, quiet))

        try:
            services = Supervisor(
                planned.services, say, lock=lock, on_ready=ready, on_death=died, on_reload=reload
            )
            return services.run(task, stop_after_task)
        finally:
            control.close()
            manager.close()


def _tell(done: Future[list[str]], say: Callable[[str], None]) -> None:
    """What a SIGHUP has changed."""
    try:
        lines = done.result()
    except Exception as error:  # the file is wrong: all goes on as it was
        lines = [str(error)]
    for line in lines:
        say(f"reload: {line}")

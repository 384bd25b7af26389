"""The supervisor and real processes that are killed, hang, run out of memory, disk and ports, or outlive it."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

from adapters import ConfigError
from serve.process.alive import answers, engine_alive
from serve.process.child import Child, Service, State
from serve.process.lock import hold, owner
from serve.process.log import MAX_BYTES, Log
from serve.process.procfs import lives, members, shared_files, sweep
from serve.process.supervisor import StartError, Supervisor
from tests.conftest import write_stack
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
ENGINE = Path(__file__).with_name("faulty_engine.py")
HANG_S = 0.8


def until(what: Callable[[], Any], limit_s: float = 20) -> Any:
    deadline = time.monotonic() + limit_s
    while not (got := what()):
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.02)
    return got


class Engine:
    """A faulty engine as a service, and what is known of it."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.folder, self.port = folder, free_port()
        url = f"http://127.0.0.1:{self.port}"
        healthy, self.alive = answers(f"{url}/health"), engine_alive(url, "base", HANG_S)
        argv = (sys.executable, str(ENGINE), str(folder), str(self.port))
        settings: dict[str, Any] = {"grace_s": 1, "alive": self.alive, "alive_every_s": 0.1, "alive_s": HANG_S}
        log = folder / "run" / "engine.log"
        self.service = Service(
            "engine", argv, {}, log, lambda: "" if healthy() else "health", url, **settings | fields
        )
        self.events: list[str] = []
        self.said: list[str] = []

    @property
    def starts(self) -> list[tuple[int, int]]:
        file = self.folder / "starts"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(leader), int(core)) for leader, core in map(str.split, lines)]

    @property
    def readies(self) -> int:
        return self.events.count("ready engine")

    def run(self, task: Callable[[], Any], **more: Any) -> None:
        """Supervise it until `task`, which runs once it is ready, has ended; what that raises is raised."""
        failed: list[BaseException] = []

        def caught() -> int:
            try:
                task()
            except BaseException as error:
                failed.append(error)
            return 0

        Supervisor(
            [self.service],
            self.said.append,
            on_ready=lambda name: self.events.append(f"ready {name}"),
            on_death=lambda name: self.events.append(f"death {name}"),
            **more,
        ).run(caught, stop_after_task=True)
        if failed:
            raise failed[0]
        assert not any(map(lives, flat(self.starts)))
        assert not remains(os.getpid()), "zombies"

    def restarted(self, n: int = 2) -> None:
        """Wait for the nth start to be ready; nothing of an earlier one may be alive when a next one begins."""
        until(lambda: self.readies == n)
        assert not any(map(lives, flat(self.starts[:-1])))
        assert all(map(lives, self.starts[-1]))

    def heard(self, text: str) -> bool:
        return any(text in line for line in self.said)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


def flat(starts: list[tuple[int, int]]) -> list[int]:
    return [pid for start in starts for pid in start]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def remains(pid: int) -> list[int]:
    """Zombies among a process's children."""
    below = [
        int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()
    ]
    return [child for child in below if state_of(child) == "Z"]


# --- killed and hung --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1], ids=["leader", "core"])
def test_a_killed_engine_is_started_again_when_all_of_it_is_gone(engine: Engine, which: int) -> None:
    def task() -> None:
        os.kill(engine.starts[0][which], signal.SIGKILL)
        if which == 1:  # a leader that does not notice that its core died
            (engine.folder / "stuck").touch()
            until(lambda: len(engine.starts) == 2)
            (engine.folder / "stuck").unlink()
        engine.restarted()
        os.kill(engine.starts[1][0], signal.SIGKILL)
        engine.restarted(3)

    engine.run(task)
    assert engine.events == ["ready engine", "death engine"] * 2 + ["ready engine"]
    assert engine.heard("engine: killed by SIGKILL (as the kernel does when memory runs out); again in ")
    if which == 0:
        assert engine.heard("; again in 1 s")
        assert engine.heard("; again in 2 s")


def test_a_stopped_engine_is_killed_and_started_again(engine: Engine) -> None:
    def task() -> None:
        began = time.monotonic()
        os.kill(engine.starts[0][0], signal.SIGSTOP)
        until(lambda: "death engine" in engine.events)
        assert HANG_S / 2 < time.monotonic() - began < HANG_S + 1.5
        engine.restarted()

    engine.run(task)
    assert engine.heard("engine: gave no sign of life for 1 s and was killed; again in 1 s")


def test_an_engine_whose_http_answers_while_its_core_does_not_hangs(engine: Engine) -> None:
    def task() -> None:
        (engine.folder / "stuck").touch()
        until(lambda: "death engine" in engine.events)
        (engine.folder / "stuck").unlink()
        engine.restarted()

    engine.run(task)
    assert engine.events == ["ready engine", "death engine", "ready engine"]


def test_a_busy_engine_does_not_hang(engine: Engine) -> None:
    def task() -> None:
        (engine.folder / "busy").touch()
        time.sleep(3 * HANG_S)

    engine.run(task)
    assert engine.events == ["ready engine"]


def test_a_question_that_never_ends_holds_up_neither_the_loop_nor_the_end(tmp_path: Path) -> None:
    engine = Engine(tmp_path, alive=lambda: threading.Event().wait(30))
    began = time.monotonic()
    engine.run(lambda: until(lambda: "death engine" in engine.events))
    assert time.monotonic() - began < 5


def test_the_supervisors_own_pause_is_not_the_childs(engine: Engine) -> None:
    child = Child(engine.service)
    child.start()
    try:
        now = until(lambda: child.step(time.monotonic()) is State.READY and time.monotonic())
        assert child.step(now + 1000) is State.READY
        assert child.step(now + 1001 + HANG_S) is State.WAITING
    finally:
        child.reap(0)


# --- memory, port and disk --------------------------------------------------------------------------------------


def test_out_of_memory_at_the_first_start_ends_with_the_reason(engine: Engine) -> None:
    (engine.folder / "greedy").touch()
    with pytest.raises(
        StartError, match=r"engine: ended with code 1 before it was ready: MemoryError\nthe end of"
    ):
        engine.run(lambda: None)
    assert not any(map(lives, flat(engine.starts)))


def test_out_of_memory_at_a_later_start_is_tried_again(engine: Engine) -> None:
    def task() -> None:
        (engine.folder / "greedy").touch()
        os.kill(engine.starts[0][0], signal.SIGKILL)
        until(
            lambda: engine.heard("engine: ended with code 1 before it was ready again: MemoryError; again in 2 s")
        )
        (engine.folder / "greedy").unlink()
        engine.restarted()

    engine.run(task)
    assert engine.events == ["ready engine", "death engine", "death engine", "ready engine"]


def test_a_port_that_another_took_meanwhile_is_waited_for(engine: Engine) -> None:
    def task() -> None:
        os.kill(engine.starts[0][0], signal.SIGSTOP)  # it keeps the port until it is killed
        until(lambda: "death engine" in engine.events)
        with contextlib.closing(socket.socket()) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            until(lambda: bound(other, engine.port))
            other.listen()
            until(lambda: engine.heard("before it was ready again: OSError: [Errno 98] Address already in use"))
        engine.restarted()

    engine.run(task)
    assert (engine.events[0], engine.events[-1]) == ("ready engine", "ready engine")


def bound(sock: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


def test_without_room_for_a_log_a_service_runs_without_one(engine: Engine) -> None:
    log = engine.service.log

    def task() -> None:
        assert not engine.said[0].startswith("engine: runs without")
        log.unlink()
        log.symlink_to("/dev/full")
        os.kill(engine.starts[0][0], signal.SIGKILL)
        engine.restarted()

    engine.run(task)
    assert engine.heard(f"engine: runs without a log: {log}: No space left on device")


def test_a_full_disk_at_the_first_start_is_said_and_not_fatal(engine: Engine) -> None:
    engine.service.log.parent.mkdir()
    engine.service.log.symlink_to("/dev/full")
    engine.run(lambda: None)
    assert engine.heard("runs without a log")


def test_a_full_disk_under_the_supervisors_own_output_ends_nothing(engine: Engine) -> None:
    def full(_line: str) -> None:
        raise OSError(28, "No space left on device")

    supervisor = Supervisor([engine.service], full)
    assert supervisor.run(lambda: 5, stop_after_task=True) == 5


def test_a_long_log_makes_room_at_the_start(engine: Engine) -> None:
    log = engine.service.log
    log.parent.mkdir()
    log.write_bytes(b"old\n" * (MAX_BYTES // 4 + 1))
    engine.run(lambda: None)
    assert log.with_name("engine.log.1").read_bytes().startswith(b"old\n")
    assert log.stat().st_size < 1000


def test_a_log_makes_room_while_its_process_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path / "engine.log")
    output = log.open("engine")
    try:
        os.write(output, b"old\n" * (MAX_BYTES // 4 + 1))
        log.trim()
        os.write(output, b"RuntimeError: new\n")
        log.trim()
    finally:
        os.close(output)
    assert log.file.read_bytes() == b"RuntimeError: new\n"
    assert log.file.with_name("engine.log.1").read_bytes().endswith(b"old\n")
    assert log.cause() == "RuntimeError: new"


def test_a_command_that_does_not_exist_is_a_start_error(engine: Engine) -> None:
    missing = Service(**{**vars(engine.service), "argv": ("/no/such/program",)})
    with pytest.raises(StartError, match="OSError: /no/such/program: No such file or directory"):
        Supervisor([missing], lambda _: None).run()


# --- what is left behind ----------------------------------------------------------------------------------------


def test_orphans_in_the_group_leave_no_zombie(engine: Engine) -> None:
    script = "import os, time; os.fork() or (os.fork() or time.sleep(0.2), os._exit(0)); time.sleep(60)"
    argv = (sys.executable, "-c", script)
    quiet = Service(**{**vars(engine.service), "argv": argv, "probe": lambda: "", "alive": None})
    found: list[int] = []

    def task() -> int:
        time.sleep(1)
        found.extend(remains(os.getpid()))
        return 0

    Supervisor([quiet], lambda _: None).run(task, stop_after_task=True)
    assert not found


def test_shared_memory_of_a_killed_engine_is_removed_and_no_other(engine: Engine) -> None:
    (engine.folder / "shared").touch()
    ours = SharedMemory(create=True, size=64)
    model = Path(f"/dev/shm/model-{os.getpid()}")
    model.touch()
    try:
        engine.run(lambda: kill_all(engine))
        assert not shared_names(engine)
        mine = shared_files([os.getpid()])
        assert Path("/dev/shm", ours.name).stat().st_ino in mine
        assert not sweep(mine | {model.stat().st_ino})
        assert model.exists()
    finally:
        model.unlink()
        ours.close()
        ours.unlink()


def shared_names(engine: Engine) -> list[Path]:
    """What is left of the engine's shared memory and semaphore."""
    memory, semaphore = (engine.folder / "shared").read_text().split()
    files = (Path("/dev/shm", memory.lstrip("/")), Path("/dev/shm", f"sem.{semaphore.lstrip('/')}"))
    return [file for file in files if file.exists()]


def kill_all(engine: Engine) -> None:
    for pid in members(engine.starts[0][0]):  # the resource tracker, too, which would clean up
        os.kill(pid, signal.SIGKILL)
    until(lambda: "death engine" in engine.events)


SUPERVISE = """
import sys
from pathlib import Path
from serve.process.lock import hold
from serve.process.supervisor import Supervisor
from tests.test_supervisor import Engine
engine = Engine(Path(sys.argv[1]))
reloads = lambda: print("reload", flush=True)
with hold(engine.folder / "run") as lock:
    said = lambda line: print(line, flush=True)
    sys.exit(Supervisor([engine.service], said, lock=lock, on_reload=reloads).run())
"""


@contextlib.contextmanager
def supervisor(folder: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """One in a process of its own, its engine ready."""
    command = [sys.executable, "-c", SUPERVISE, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.STDOUT, **options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def ready(output: Path) -> bool:
    return "engine: ready" in output.read_text()


def test_a_killed_supervisor_leaves_nothing_behind(engine: Engine, output: Path) -> None:
    (engine.folder / "shared").touch()
    with output.open("w") as out, supervisor(engine.folder, stdout=out) as process:
        until(lambda: ready(output))
        assert len(shared_names(engine)) == 2
        with pytest.raises(ConfigError, match=rf"in use by `python -m serve` with pid {process.pid}: "):
            hold(engine.folder / "run").__enter__()
        watch = watcher(process.pid)
        os.kill(watch, signal.SIGKILL)
        again = until(lambda: (pid := watcher(process.pid)) != watch and pid)
        time.sleep(0.3)  # it is told at the next look
        process.kill()
        with hold(engine.folder / "run"):  # waits for the rest to be gone
            assert not any(map(lives, [*flat(engine.starts), again]))
    assert not shared_names(engine)


def watcher(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [
        int(child) for child in children if b"serve.process.watch" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return next((child for child in found if lives(child)), 0)


def test_a_second_serve_refuses_with_the_pid_of_the_first(tmp_path: Path) -> None:
    file = write_stack(tmp_path, "http://127.0.0.1:1")
    command = [sys.executable, "-m", "serve", "--config", str(file), "--run-dir", str(tmp_path / "run")]
    assert owner(tmp_path / "run") is None
    with hold(tmp_path / "run"):
        assert owner(tmp_path / "run") == str(os.getpid())
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert owner(tmp_path / "run") is None
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"--run-dir {tmp_path}/run: in use by `python -m serve` with pid {os.getpid()}: end that one first, "
        "or choose another --run-dir\n"
    )


# --- signals ----------------------------------------------------------------------------------------------------


def test_sighup_reloads_and_sigterm_ends(engine: Engine, output: Path) -> None:
    with output.open("w") as out, supervisor(engine.folder, stdin=subprocess.DEVNULL, stdout=out) as process:
        until(lambda: ready(output))
        process.send_signal(signal.SIGHUP)
        until(lambda: "\nreload\n" in output.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert output.read_text().endswith("stopped: engine\n")
    assert not any(map(lives, flat(engine.starts)))


def test_the_end_of_the_terminal_ends_the_stack(engine: Engine, output: Path) -> None:
    parent, child = pty.openpty()
    script = f"import fcntl, termios, os; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{SUPERVISE}"
    command = [sys.executable, "-c", script, str(engine.folder)]
    with (
        output.open("w") as out,
        subprocess.Popen(
            command, cwd=ROOT, stdin=child, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        os.close(child)
        until(lambda: ready(output))
        process.send_signal(signal.SIGHUP)
        until(lambda: "\nreload\n" in output.read_text())
        os.close(parent)
        assert process.wait(5) == 0
    assert "stopped: engine" in output.read_text()
    assert not any(map(lives, flat(engine.starts)))

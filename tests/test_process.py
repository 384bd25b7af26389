"""`python -m router` as a process: bounds on what clients send, several workers, and its end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import cpu_s
from tests.conftest import GENERAL, LABELS, LEGAL, ask, chat, wait_ready, write_stack
from tests.servers import FakeEngine, serving

ROOT = Path(__file__).parent.parent


class Router:
    """`python -m router` over a fake engine."""

    def __init__(self, process: subprocess.Popen[str], url: str, engine: FakeEngine) -> None:
        self.process, self.url, self.engine = process, url, engine
        self.port = int(url.rpartition(":")[2])

    def children(self) -> list[int]:
        """Its workers; not Python's resource tracker."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def send(self, data: bytes, wait_s: float = 10) -> bytes:
        """Raw bytes in, everything that comes back until the end of the connection or of the wait."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            return received(connection)


def received(connection: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while data := connection.recv(65536):
            got += data
    return got


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Router]:
    engine = FakeEngine(["base", *LABELS])
    with serving(engine) as engine_url:
        file = write_stack(folder, engine_url, **settings)
        port = int(next(line for line in file.read_text().splitlines() if line.startswith("  port:")).split()[1])
        command = [sys.executable, "-m", "router", "--config", str(file)]
        with subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                deadline = time.monotonic() + 30
                while not listening(port):
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                wait_ready(url)
                yield Router(process, url, engine)
            finally:
                process.kill()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- bounds -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    settings = {"max_header_kb": 4, "receive_timeout_s": 0.6, "max_body_mb": 0.1}
    with running(tmp_path_factory.mktemp("bounded"), **settings) as one:
        yield one


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "filler",
    [
        b"X-Long: " + b"a" * 5000 + b"\r\n",
        b"X-Many: 1\r\n" * 600,
        b"X-Endless: " + b"a" * 9000,
        b"X-Long: " + b"a" * 5000 + b"\r\n\r\n",
        b"X-Many: 1\r\n" * 600 + b"Content-Length: 2\r\n\r\n{}",
        b"X-Huge: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_is_a_431(bounded: Router, filler: bytes) -> None:
    """Complete or not, in one read or several; the third one never ends its line."""
    answer = bounded.send(HEAD + filler)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"header_too_large"' in answer
    assert b"router.max_header_kb" in answer


@pytest.mark.parametrize("body", [b"", b'{"model": "base", "messages": [], "x": "' + b"a" * 20_000 + b'"}'])
def test_a_large_head_behind_a_request_takes_nothing_from_its_answer(bounded: Router, body: bytes) -> None:
    first = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body if body else HEALTH
    answer = bounded.send(first + HEALTH.replace(b"Host", b"X-Long: " + b"a" * 5000 + b"\r\nHost"))
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200 ") == 1


def test_a_large_body_is_no_large_head(bounded: Router) -> None:
    body = b'{"model": "base", "messages": [], "x": "' + b"a" * 50_000 + b'"}'
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer = bounded.send(one + one + HEALTH.replace(b"Host", b"Connection: close\r\nHost"))
    assert answer.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", HEAD])
def test_a_head_that_does_not_come_is_not_waited_for(bounded: Router, sent: bytes) -> None:
    began = time.monotonic()
    assert bounded.send(sent) == b""
    assert 0.4 < time.monotonic() - began < 5


def test_a_body_that_does_not_come_is_a_408(bounded: Router) -> None:
    answer = bounded.send(HEAD + b'Content-Length: 100\r\n\r\n{"model"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\x00\xff\r\n\r\n"]
)
def test_what_is_no_http_is_told_so(bounded: Router, junk: bytes) -> None:
    answer = bounded.send(junk)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_http"' in answer


def test_idle_and_pipelined_connections_still_work(bounded: Router) -> None:
    one = HEALTH
    with socket.create_connection(("127.0.0.1", bounded.port), timeout=5) as connection:
        connection.sendall(one + one)
        time.sleep(1)
        connection.sendall(one)
        time.sleep(0.2)
        assert connection.recv(65536).count(b"HTTP/1.1 200 ") == 3


def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path, answer_timeout_s=0.5, max_in_flight=1) as router, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", router.port))
        flood = chat(LEGAL, stream=True, test="raw", raw=["data: " + "x" * 50_000 + "\n\n"], times=1000)
        deaf.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(raw := json.dumps(flood).encode()), raw))
        time.sleep(0.2)
        assert ask("POST", f"{router.url}/v1/chat/completions", chat(LEGAL))[0] == 429
        time.sleep(2)
        assert ask("POST", f"{router.url}/v1/chat/completions", chat(LEGAL))[0] == 200
        assert state(router.port, deaf.getsockname()[1]) != ESTABLISHED
        assert not received(deaf).endswith(b"0\r\n\r\n")


def test_a_new_text_costs_its_decision_and_nothing_more(tmp_path: Path) -> None:
    """BLAS's idle threads would spin for 0.1 s after each, with time that the engine beside the router needs."""
    with running(tmp_path) as router:
        ask("POST", f"{router.url}/route", {"text": LEGAL})
        began = cpu_s([router.process.pid])
        for number in range(10):
            ask("POST", f"{router.url}/route", {"text": f"{LEGAL} {number}"})
            time.sleep(0.2)
        assert (cpu_s([router.process.pid]) - began) / 10 < 0.04


def state(port: int, peer: int) -> str | None:
    """Of the server's side of a connection, as Linux tells it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [f":{port:04X}", f":{peer:04X}"]
    return next((row[3] for row in rows if [row[1][8:], row[2][8:]] == ends), None)


ESTABLISHED = "01"


# --- several workers --------------------------------------------------------------------------------------------


def test_workers_share_a_port_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as router:
        first = router.children()
        assert len(first) == 2
        for _ in range(20):
            assert ask("POST", f"{router.url}/v1/chat/completions", chat(GENERAL))[0] == 200
        deadline = time.monotonic() + 5
        while total_requests(router) < 20 and time.monotonic() < deadline:
            time.sleep(0.05)  # a worker counts what has ended a few at a time
        assert total_requests(router) == 20, "any worker tells the sum"
        os.kill(first[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (
            not (len(now := set(router.children())) == 2 and first[0] not in now) and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        assert first[0] not in now
        assert first[1] in now
        router.process.send_signal(signal.SIGTERM)
        assert router.process.wait(10) == 0
        assert not [pid for pid in now if Path(f"/proc/{pid}").exists()]


def total_requests(router: Router) -> float:
    import urllib.request

    with urllib.request.urlopen(f"{router.url}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return sum(s.value for family in families for s in family.samples if s.name == "lora_select_requests_total")


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as router:
        workers = router.children()
        router.process.kill()
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(alive(pid) for pid in workers)


def test_ctrl_c_drains_workers_too(tmp_path: Path) -> None:
    """A terminal tells the whole group, of which only the parent acts."""
    with running(tmp_path, workers=2) as router:
        for worker in router.children():
            os.kill(worker, signal.SIGINT)
        time.sleep(0.3)
        assert ask("GET", f"{router.url}/health")[0] == 200
        stream = stream_of(router, words=60)
        os.killpg(router.process.pid, signal.SIGINT)
        assert len(list(stream)) == 59
        assert router.process.wait(5) == 0
        assert "Traceback" not in ended(router)


def test_a_second_signal_ends_workers_at_once(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, drain_s=60) as router:
        stream_of(router, extra_body={"test": "stall"})
        os.killpg(router.process.pid, signal.SIGINT)
        time.sleep(0.6)
        assert router.process.poll() is None
        os.killpg(router.process.pid, signal.SIGINT)
        assert router.process.wait(3) == 0


def test_workers_that_cannot_work_as_written_are_not_started_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command(
        "--config", str(write_stack(tmp_path, "http://127.0.0.1:1", workers=2, decision_log="file/x.db"))
    )
    assert done.returncode == 2
    assert "router.decision_log: " in done.stderr
    assert "Traceback" not in done.stderr


def stream_of(router: Router, **fields: Any) -> Iterator[Any]:
    """A stream whose first event has come."""
    client = openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0)
    words = {"words": fields.pop("words", 5)}
    stream = client.chat.completions.create(**chat(LEGAL), stream=True, **{"extra_body": words} | fields)
    events: Iterator[Any] = iter(stream)
    next(events)
    return events


def ended(router: Router) -> str:
    """What it said, when it has ended."""
    assert router.process.stderr
    return router.process.stderr.read()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- the end ----------------------------------------------------------------------------------------------------


def test_sigterm_drains(tmp_path: Path) -> None:
    with running(tmp_path, drain_s=10) as router:
        client = openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0)
        stream = iter(client.chat.completions.create(**chat(LEGAL), stream=True))
        next(stream)
        slow: list[tuple[int, Any, Any]] = []
        body = chat(LEGAL, test="slow")
        other = threading.Thread(
            target=lambda: slow.append(ask("POST", f"{router.url}/v1/chat/completions", body))
        )
        other.start()
        time.sleep(0.1)
        router.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        status, answer, _ = ask("GET", f"{router.url}/health")
        assert (status, answer) == (503, {"status": "draining"})
        assert ask("GET", f"{router.url}/ready")[0] == 503
        status, answer, headers = ask("POST", f"{router.url}/v1/chat/completions", chat(LEGAL))
        assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "engine_unavailable", "2")
        assert len(list(stream)) == 4, "an open stream ends by itself"
        other.join()
        assert slow[0][0] == 200
        router.process.wait(5)


def test_a_drain_has_an_end(tmp_path: Path) -> None:
    with running(tmp_path, drain_s=0.5) as router:
        client = openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0)
        stream = iter(client.chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "stall"}))
        next(stream)
        began = time.monotonic()
        router.process.send_signal(signal.SIGTERM)
        router.process.wait(10)
        assert 0.4 < time.monotonic() - began < 4
        assert router.engine.cancelled.wait(5), "the engine's work is cancelled too"


def test_what_is_open_at_the_end_of_a_drain_is_told_so(tmp_path: Path) -> None:
    with running(tmp_path, drain_s=0.5, decision_log="log.db") as router:
        stream = stream_of(router, extra_body={"test": "stall"})
        hung: list[tuple[int, Any, Any]] = []
        body = chat(LEGAL, stream=True, test="raw", raw=[], stall=True)
        waiting = threading.Thread(
            target=lambda: hung.append(ask("POST", f"{router.url}/v1/chat/completions", body))
        )
        waiting.start()
        place = ("127.0.0.1", router.port)
        with (
            socket.create_connection(place, timeout=5) as half,
            socket.create_connection(place, timeout=5) as half_dry,
        ):
            half.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
            half_dry.sendall(HEAD.replace(b"/v1/chat/completions", b"/route") + b"Content-Length: 9\r\n\r\n{")
            time.sleep(0.2)
            router.process.send_signal(signal.SIGTERM)
            with pytest.raises(openai.APIError, match="shutting down"):
                list(stream)
            answer, dry = received(half), received(half_dry)
        waiting.join(5)
        status, page, headers = hung[0]
        assert (status, page["error"]["code"], headers["retry-after"]) == (503, "engine_unavailable", "2")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert dry.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"engine_unavailable"' in dry
        assert router.process.wait(5) == 0
        assert ended(router) == ""
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as log:
        rows = log.execute("SELECT status, error FROM decisions ORDER BY status").fetchall()
    assert rows[:2] == [(200, "engine_unavailable"), (503, "engine_unavailable")]


@pytest.mark.parametrize("second", [None, signal.SIGTERM])
def test_ctrl_c_drains(tmp_path: Path, second: signal.Signals | None) -> None:
    """Whoever else speaks of the same wish is not a second one."""
    with running(tmp_path) as router:
        stream = stream_of(router, words=60)
        router.process.send_signal(signal.SIGINT)
        if second:
            time.sleep(0.1)
            router.process.send_signal(second)
        assert len(list(stream)) == 59
        assert router.process.wait(5) == 0
        assert ended(router) == ""


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with running(tmp_path, drain_s=60) as router:
        client = openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0)
        stream = iter(client.chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "stall"}))
        next(stream)
        router.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert router.process.poll() is None
        router.process.send_signal(signal.SIGTERM)
        router.process.wait(5)


# --- the command line -------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "router", *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_is_made_without_a_stack(tmp_path: Path) -> None:
    done = command("key", "team-a", "--config", str(tmp_path / "nothing.yaml"))
    key = done.stdout.splitlines()[1].strip()
    assert hashlib.sha256(key.encode()).hexdigest() in done.stdout


def test_explain_shows_every_score(tmp_path: Path) -> None:
    done = command("explain", LEGAL, "--config", str(write_stack(tmp_path, "http://127.0.0.1:1")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("legal  (classified, threshold 0.50, ")
    assert {line.split()[-1] for line in done.stdout.splitlines()[1:]} == {"base", *LABELS}


@pytest.mark.parametrize("arguments", [["explain"], ["key"], ["serve", "text"], ["nonsense"]])
def test_a_wrong_command_line_is_explained(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "usage: python -m router" in done.stderr


def test_a_log_that_cannot_be_opened_exits_2_before_it_serves(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("--config", str(write_stack(tmp_path, "http://127.0.0.1:1", decision_log="file/x.db")))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "router.decision_log: " in done.stderr

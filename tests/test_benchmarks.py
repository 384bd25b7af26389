"""The benchmarks: right sums, answers that are checked, processes that end, and one run of everything."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters import load
from benchmarks.load import Job, LoadClient
from benchmarks.overhead.bars import bars
from benchmarks.overhead.memory import drift
from benchmarks.overhead.options import SECTIONS, parse
from benchmarks.overhead.peers import PEERS, NotInstalled, Place
from benchmarks.overhead.plan import FULL
from benchmarks.overhead.report import tables
from benchmarks.overhead.router import write_config
from benchmarks.overhead.targets import (
    DIRECT,
    EVERYTHING,
    OURS,
    PLAIN,
    TRACED,
    Target,
    ask,
    see_decisions,
    wait_for_answer,
)
from benchmarks.processes import BenchmarkError, Command, Fleet, Ports, cpu_s, rss_mb, tree
from benchmarks.stats import Spread, percentile, ratios, rotated, two_points
from benchmarks.stub import MODELS
from benchmarks.texts import KNOWN, Fresh, single_token_words
from record.origin import ROOT, commit
from router.choose import Decision, Reason
from router.decide import Routed
from router.life import Life, Occupancy
from router.metrics import Metrics
from tests.servers import FakeEngine, serving
from tests.test_record import new_checkout

SPIN = "import time\nuntil = time.process_time() + {}\nwhile time.process_time() < until: pass\ntime.sleep(60)"


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, 0), ([7], 99, 7), ([1, 2, 3], 50, 2), ([1, 2, 3, 4], 50, 2.5), (list(range(101)), 95, 95)],
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)


def test_spread() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3, 3)
    with pytest.raises(ValueError, match="no rounds"):
        Spread.of([])


@pytest.mark.parametrize(
    ("numbers", "references", "expected"),
    [
        ({0: 6, 1: 8, 2: 5}, {0: 3, 1: 2}, [2, 4]),
        ({0: 6}, {0: 0.0}, []),
        ({0: 6, 1: 8}, {0: -3, 1: 2}, [4]),
        ({0: -6, 1: 8, 2: 0}, {0: 3, 1: 2, 2: 1}, [4]),
        ({0: -6}, {0: -3}, []),
    ],
)
def test_ratios_of_what_was_measured(
    numbers: dict[int, float], references: dict[int, float], expected: list[float]
) -> None:
    assert ratios(numbers, references) == expected


def test_the_cost_of_one_more_chunk() -> None:
    def cost(streams: int, chunks: int) -> tuple[float, float, float]:
        return streams * 100 + chunks * 7, streams, chunks

    assert two_points(cost(50, 500), cost(9, 990)) == pytest.approx((100, 7))
    with pytest.raises(ValueError, match="same length"):
        two_points(cost(50, 500), cost(5, 50))


def test_every_round_begins_with_another_target() -> None:
    targets = [Target(name, 1, "base", (), "") for name in "abc"]
    assert ["".join(target.name for target in rotated(targets, turn)) for turn in range(4)] == [
        "abc",
        "bca",
        "cab",
        "abc",
    ]


def test_fresh_texts_are_never_seen_before() -> None:
    fresh = Fresh()
    texts = [*fresh.texts(500), *fresh.texts(500), *fresh.texts(10, 20, single_token_words(lambda _: 1))]
    assert len({*texts, *KNOWN}) == len(texts) + len(KNOWN)
    assert {len(text.split()) for text in texts[-10:]} == {20}
    assert Fresh().texts(3) == Fresh().texts(3)


def test_memory_that_grows_or_shrinks_has_moved() -> None:
    assert drift([100, 101, 99]) == pytest.approx(0.01)
    assert drift([100, 100, 104]) == pytest.approx(0.04)


def test_cpu_and_memory_of_a_process_tree(tmp_path: Path) -> None:
    nested = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN.format(0.3)!r}])"
    with Fleet(tmp_path) as fleet:
        process = fleet.start("parent", Command((sys.executable, "-c", nested), {}, tmp_path))
        deadline = time.monotonic() + 20
        while len(tree(process.pid)) < 2 or cpu_s(tree(process.pid)) < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = tree(process.pid)
        assert 0.3 < cpu_s(pids) < 1
        assert rss_mb(pids) > rss_mb(pids[:1]) > 1
    assert gone(pids)


def test_what_ignores_sigterm_is_ended_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes.ENDS_WITHIN_S", 0.3)
    lines = ("import signal, time", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "print('deaf', flush=True)")
    with Fleet(tmp_path) as fleet:
        process = fleet.start(
            "deaf", Command((sys.executable, "-c", "\n".join([*lines, "time.sleep(60)"])), {}, tmp_path)
        )
        while "deaf" not in fleet.log("deaf").read_text(encoding="utf-8"):
            time.sleep(0.05)
    assert gone([process.pid])


def test_a_process_that_ends_too_early_says_why(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        script = "import sys\nsys.exit('the reason')"
        process = fleet.start("short", Command((sys.executable, "-c", script), {}, tmp_path))
        with pytest.raises(BenchmarkError, match="short ended with code 1: the reason"):
            wait_for_answer(fleet, "short", process, 1, "base")
        with pytest.raises(BenchmarkError, match="none: nowhere/none cannot be run: No such file"):
            fleet.start("none", Command(("nowhere/none",), {}, tmp_path))


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BenchmarkError, match=f"port {port}: address already in use"):
            Ports(port).take()
    assert Ports(port).take() == port
    assert Ports().take() > 0
    last = Ports(65535)
    assert last.take() == 65535
    with pytest.raises(BenchmarkError, match="port 65536: there are 1 to 65535"):
        last.take()


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadClient, Job]]:
    """The load client, and a job for the stub."""
    folder, port = tmp_path_factory.mktemp("stub"), Ports().take()
    with Fleet(folder) as fleet:
        command = Command((sys.executable, "-m", "benchmarks.stub", "--port", str(port)), {}, ROOT)
        stub = fleet.start("stub", command)
        wait_for_answer(fleet, "stub", stub, port, MODELS[0])
        yield LoadClient(fleet), Job(port, MODELS[0], connections=3, watch={"target": (stub.pid,)})


@pytest.mark.parametrize("chunks", [0, 1, 50])
@pytest.mark.parametrize("pause_ms", [0, 1])
def test_the_client_counts_what_the_stub_sends(
    stubbed: tuple[LoadClient, Job], chunks: int, pause_ms: int
) -> None:
    client, job = stubbed
    measured = client.run(replace(job, requests=20, chunks=chunks, pause_ms=pause_ms))
    assert measured.failure == ""
    assert (measured.requests, measured.chunks, measured.latency.count) == (20, 20 * chunks, 20)
    assert 0 < measured.first_byte.p50 <= measured.latency.p50 <= measured.latency.p99 < measured.took_s * 1000
    assert measured.latency.p50 >= pause_ms * chunks
    assert set(measured.cpu_s) == {"target", "client"}
    assert 0 < measured.cpu_s["target"] < measured.took_s * 2


def test_hits_and_misses_are_told_apart(stubbed: tuple[LoadClient, Job]) -> None:
    client, job = stubbed
    measured = client.run(replace(job, requests=40, fresh=Fresh().texts(10), fresh_every=10))
    assert (measured.latency.count, measured.fresh.count) == (36, 4)
    assert "no more fresh texts" in client.run(replace(job, requests=40, fresh_every=10)).failure


def test_a_job_ends_after_its_time(stubbed: tuple[LoadClient, Job]) -> None:
    client, job = stubbed
    measured = client.run(replace(job, warm_s=0.1, window_s=0.3))
    assert measured.failure == ""
    assert measured.requests > 10
    assert 0.29 < measured.took_s < 3  # a loop's timer may fire a millisecond early


def test_wrong_answers_are_noticed(stubbed: tuple[LoadClient, Job]) -> None:
    client, job = stubbed
    few = replace(job, requests=5)
    assert "not the answer" in client.run(replace(few, expect="something else")).failure
    assert client.run(replace(few, path="/nowhere")).failure.startswith("status 404")
    with serving(FakeEngine(["base"])) as url:
        other = replace(few, port=int(url.rpartition(":")[2]))
        assert "not the answer" in client.run(other).failure
        assert client.run(replace(other, chunks=5)).failure.startswith("0 of 5 chunks")
    assert "refused" in client.run(other).failure.lower()
    assert client.run(few).failure == ""


def test_peers_that_are_missing_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    place = Place(1, 2, 3, tmp_path, tmp_path / "none")
    for peer in PEERS.values():
        with pytest.raises(NotInstalled, match="no "):
            peer(place)


def test_a_limit_is_passed_missed_or_not_measured() -> None:
    spread = {"median": 3.0, "low": 1.0, "high": 4.0, "rounds": 3}
    measured = {
        "vllm-router": {"ratio_of_router_all_on": {"cpu_us_per_request": spread}},
        "litellm": {"ratio_of_router_all_on": {"cpu_us_per_request": spread | {"median": 0.02}}},
    }
    scenario = {"kind": "whole", "connections": 16, "measured": measured, "failed": {}}
    found = bars({
        "proxy": {"scenarios": [scenario]},
        "uncached": {"p50_ms": {"20": spread}},
        "misses": {"p50_ms_of_hits": {"ratio": spread | {"median": 1.1}}},
    })  # fmt: skip
    verdicts = {bar.name: bar.passed for bar in found}
    assert verdicts["CPU per request, 16 connections, of vllm-router's"] is False
    assert verdicts["the same, of litellm's"] is True
    assert verdicts["uncached decision, p50, 20 tokens"] is True
    assert verdicts["p50 of hits beside 1 % misses, growth"] is True
    assert verdicts["resident memory"] is None
    assert len(verdicts) == len(found) == 12


def test_a_peer_that_is_a_checkout_is_named_by_its_commit(tmp_path: Path) -> None:
    module = new_checkout(tmp_path / "stack")
    python = tmp_path / "peers" / "production-stack" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/stack exec {sys.executable} -B "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    peer = PEERS["production-stack"](Place(1, 2, 3, tmp_path, tmp_path / "peers"))
    assert peer.version == f"commit {commit(module)[:12]}"


def test_everything_on_is_what_a_stack_can_switch_on(tmp_path: Path) -> None:
    stack = load(write_config(tmp_path, 1, 2, everything=True, traced=True))
    assert all(one.tags and one.sampling and one.system_prompt for one in stack.adapters.values())
    assert stack.router.keys
    assert stack.router.decision_log
    assert stack.router.otlp
    assert FULL.memory_cached == stack.router.cache_entries


def test_the_stub_takes_traces(stubbed: tuple[LoadClient, Job]) -> None:
    assert ask(stubbed[1].port, "/v1/traces", {}) == (200, "")


@pytest.mark.parametrize(
    ("reasons", "complaint"),
    [
        ([Reason.CLASSIFIED, Reason.BELOW_THRESHOLD], ""),
        (
            [Reason.CLASSIFIED, Reason.CLASSIFIER_TIMEOUT],
            "not every decision was the classifier's: 1 classifier-t",
        ),
        ([Reason.CLASSIFIER_ERROR] * 2, "2 classifier-error of 2"),
        ([], "counts no decisions: 200"),
    ],
)
def test_decisions_without_the_classifier_are_noticed(reasons: list[Reason], complaint: str) -> None:
    metrics = Metrics(Occupancy())
    lives = [Life("/v1/chat/completions", "1", routed=Routed(Decision("base", None, why))) for why in reasons]
    metrics.ended(lives)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": metrics.page()})

    with serving(app) as url:
        target = Target("router", int(url.rpartition(":")[2]), "auto", (), "")
        with pytest.raises(BenchmarkError, match=complaint) if complaint else contextlib.nullcontext():
            see_decisions(target)


def test_only_a_whole_run_writes_the_published_file() -> None:
    assert parse([]).output == ROOT / "benchmarks" / "results" / "overhead.json"
    assert parse([]).sections == SECTIONS
    assert parse(["--quick"]).output is parse(["--section", "memory"]).output is None
    assert parse(["--no-peers"]).output is None


def test_the_readme_tells_of_every_option_section_and_peer() -> None:
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for word in (
        "--section",
        "--quick",
        "--no-peers",
        "--output",
        "--peers",
        "--router",
        "--first-port",
        *SECTIONS,
        *PEERS,
    ):
        assert f"`{word}" in readme, f"benchmarks/README.md does not tell of {word}"


def test_a_quick_run_of_everything(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    with running(tmp_path, "--quick", "--output", str(output)) as process:
        started = watch(process, tmp_path)
    assert process.returncode == 0, progress(tmp_path)
    assert len(started) >= 4
    assert gone(started)
    document = json.loads(output.read_text(encoding="utf-8"))
    assert {"command", "commit", "date", "machine", "versions", "plan", "sections", "bars"} <= set(document)
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    check_proxy(document["sections"]["proxy"])
    assert document["sections"]["misses"]["misses"] > 0
    assert 0 < document["sections"]["misses"]["requests_per_s"]["ratio"]["median"] < 1
    assert set(document["sections"]["uncached"]["p50_ms"]) == {"20", "64", "128", "400"}
    assert document["sections"]["memory"]["highest_mb"] > 50
    assert all((bar["pass"] is None) == (bar["value"] is None) for bar in document["bars"])
    assert (tmp_path / "out").read_text(encoding="utf-8").strip() == "\n".join(tables(document)).strip()


def check_proxy(section: dict[str, Any]) -> None:
    """Every scenario has every target, one of them with traces too, with numbers that can be true."""
    assert list(section["targets"]) == [DIRECT, *OURS]
    assert len(section["scenarios"]) == 6
    traced = [scenario for scenario in section["scenarios"] if TRACED in scenario["measured"]]
    assert [(one["kind"], one["connections"]) for one in traced] == [("whole", 4)]
    for scenario in section["scenarios"]:
        assert scenario["failed"] == {}
        measured = scenario["measured"]
        assert set(measured) - {TRACED} == {DIRECT, PLAIN, EVERYTHING}
        for found in measured.values():
            assert found["p50_ms"]["rounds"] == 2
            assert found["p50_ms"]["low"] <= found["p50_ms"]["median"] <= found["p50_ms"]["high"]
        cost = "cpu_us_per_request" if scenario["kind"] == "whole" else "cpu_us_per_stream"
        assert measured[DIRECT][cost]["median"] == 0
        assert measured[PLAIN][cost]["median"] > 10


@pytest.fixture
def heard() -> Iterator[None]:
    """SIGINT reaches processes that are started now. Below a shell's `&` or nohup it is ignored, and stays so in
    every child, as it should: Ctrl-C is not meant for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    with running(tmp_path, "--quick", "--output", str(output)) as process:
        started = watch(process, tmp_path, until=f"{PLAIN}: ready")
        process.send_signal(number)
        process.wait(60)
    assert process.returncode == 130, progress(tmp_path)
    assert "interrupted" in progress(tmp_path)
    assert "Traceback" not in progress(tmp_path)
    assert len(started) >= 3
    assert gone(started)
    assert not output.exists()


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert complaint(tmp_path, "--first-port", str(port)) == (
            f"benchmarks.overhead: port {port}: address already in use; "
            "end what uses it, or leave --first-port out"
        )


def test_a_port_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    said = complaint(tmp_path, "--first-port", "70000")
    assert said == (
        "benchmarks.overhead: port 70000: there are 1 to 65535; give another --first-port, or leave it out"
    )


def test_a_result_that_cannot_be_written_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    said = complaint(tmp_path, "--output", str(tmp_path))
    assert said == f"benchmarks.overhead: the result cannot be written to {tmp_path}: Is a directory"
    assert progress(tmp_path).strip() == said


def test_a_missing_router_is_one_line(tmp_path: Path) -> None:
    said = complaint(tmp_path, "--section", "memory", "--router", str(tmp_path))
    assert said == f"benchmarks.overhead: there is no router in {tmp_path}; name a checkout with --router"


def complaint(folder: Path, *arguments: str) -> str:
    """The last line of a run that cannot start; no traceback before it."""
    with running(folder, "--quick", *arguments) as process:
        process.wait(60)
    assert (process.returncode, (folder / "out").read_text(encoding="utf-8")) == (1, "")
    assert "Traceback" not in progress(folder)
    return progress(folder).strip().splitlines()[-1]


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, its output in two files."""
    command = [sys.executable, "-m", "benchmarks.overhead", *arguments]
    with (folder / "out").open("wb") as out, (folder / "progress").open("wb") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def progress(folder: Path) -> str:
    """What a run has said so far."""
    return (folder / "progress").read_text(encoding="utf-8")


def watch(process: subprocess.Popen[bytes], folder: Path, until: str = "never") -> set[int]:
    """Every process that a run has below it, until it ends or says something."""
    seen: set[int] = set()
    while process.poll() is None and until not in progress(folder):
        seen |= set(tree(process.pid)) - {process.pid}
        time.sleep(0.1)
    return seen


def gone(pids: Iterable[int]) -> bool:
    """All of them, within a moment: whom nobody waits for is a zombie until init has noticed."""
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"

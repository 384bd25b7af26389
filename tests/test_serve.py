"""The engine's command line, what `check` says, and the supervisor with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from adapters import ConfigError, Stack
from serve.engine.command import engine_command
from serve.engine.machine import OURS, Build, Machine
from serve.process.child import Service
from serve.process.supervisor import StartError, Supervisor
from serve.stack import plan
from tests.adapter_files import BASE, write_adapter, write_stack
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
CPU, CUDA = Build("0.32.0", cpu=True), Build("0.32.0", cpu=False)
HERE = Machine(cores=2, memory=16 << 30, free=12 << 30)


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_the_engines_command(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, engine={"args": {"max-model-len": 512, "enforce-eager": True, "seed": None}})
    command = engine_command(stack, CUDA, {"law": 8, "med": 20}, HERE, BASE)
    assert command.argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    assert option(command.argv, "--host") == "127.0.0.1"
    assert option(command.argv, "--served-model-name") == "tiny"
    assert option(command.argv, "--max-lora-rank") == "32"
    assert option(command.argv, "--max-model-len") == "512"
    assert "--enforce-eager" in command.argv
    assert "--seed" not in command.argv
    assert "--lora-modules" not in command.argv, "one broken adapter would stop the others"
    assert "--kv-cache-memory-bytes" not in command.argv
    assert command.env["HF_HUB_OFFLINE"] == "1"
    assert "OMP_NUM_THREADS" not in command.env
    assert all(note.count("\n") == 0 and ": " in note for note in command.notes)


def test_the_cpu_builds_threads_and_cache(tmp_path: Path) -> None:
    command = engine_command(write_stack(tmp_path), CPU, {}, HERE, BASE | {"max_position_embeddings": 128})
    assert command.env["OMP_NUM_THREADS"] == "2"
    own = engine_command(write_stack(tmp_path, engine={"env": {"OMP_NUM_THREADS": "1"}}), CPU, {}, HERE, BASE)
    assert "engine: OMP_NUM_THREADS=1, not bound to cores" in own.notes
    assert own.env["OMP_NUM_THREADS"] == "1"
    assert command.estimate is not None
    assert command.estimate.tokens == 16 * 128
    assert option(command.argv, "--kv-cache-memory-bytes") == str(command.estimate.kv)
    for settings in (
        {"env": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
        {"args": {"gpu-memory-utilization": 0.5}},
        {"args": {"kv_cache_memory_bytes": "1G"}},
    ):
        command = engine_command(write_stack(tmp_path, engine=settings), CPU, {}, HERE, BASE)
        assert not any(note.startswith("engine: --kv-cache-memory-bytes") for note in command.notes)


@pytest.mark.parametrize(
    ("asked", "slots", "why"),
    [
        (None, "3", "2 adapters and one more, for an update"),
        (1, "1", "engine.max_loras; the 2 adapters take turns in them"),
        (5, "5", "engine.max_loras"),
    ],
)
def test_slots(tmp_path: Path, asked: int | None, slots: str, why: str) -> None:
    command = engine_command(write_stack(tmp_path, engine={"max_loras": asked}), CPU, {}, HERE)
    assert option(command.argv, "--max-loras") == slots
    assert int(option(command.argv, "--max-cpu-loras")) >= max(4, int(slots))
    assert any(note.startswith(f"engine: --max-loras {slots}: {why}") for note in command.notes)


def additional(stack: Stack) -> Any:
    argv = engine_command(stack, CPU, {}, HERE).argv
    return json.loads(option(argv, "--additional-config"))


@pytest.mark.parametrize(
    ("sections", "slots", "why"),
    [
        ({"lag": {"library": ["law", "med"]}}, 3, "law, med and one more, for an update beside the old version"),
        (
            {"lag": {"library": "all"}},
            4,
            "law, med and one more, for an update beside the old version, and one to add",
        ),
        ({"lag": {name: {"library": ["law", "med"]} for name in ("one", "two")}}, 3, "law, med and one more"),
        ({"router": {"classifier": ["embedding", "spectral"]}}, 4, "law, med and one more"),
        ({"lag": {"library": "all"}, "engine": {"library_slots": 9}}, 9, "engine.library_slots"),
        ({"engine": {"library_slots": 2}}, 2, "engine.library_slots"),
    ],
)
def test_library_slots(tmp_path: Path, sections: dict[str, Any], slots: int, why: str) -> None:
    stack = write_stack(tmp_path, **sections)
    assert additional(stack) == {"lora_select": {"library_slots": slots}}
    command = engine_command(stack, CUDA, {}, HERE)
    # One batch holds every adapter and every virtual model; no case here has both kinds of those.
    assert option(command.argv, "--max-loras") == str(2 + max(1, len(stack.lag)))
    assert any(
        note.startswith(f"engine: {slots} library slots (additional-config): {why}") for note in command.notes
    )
    assert "engine: LAG: unproven: it has run on a GPU for minutes only" in command.notes


def test_who_scores_is_one_model_more(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, router={"classifier": "spectral"}, lag={"library": "all"})
    notes = engine_command(stack, CPU, {}, HERE).notes
    more = "2 virtual models, one of them for router.classifier: spectral"
    assert f"engine: --max-loras 4: 2 adapters and {more}" in notes


def test_versions_of_an_adapter_are_one_member_but_for_spectral(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        write_adapter(tmp_path / "law" / version)
    adapters = {"law": {"path": "law", "label": "law", "versions": {"v1": 1, "v2": 1}}, "med": {"path": "med"}}
    stack = write_stack(tmp_path, adapters=adapters, lag={"library": ["law", "med"]})
    assert additional(stack.expanded()) == {"lora_select": {"library_slots": 3}}
    stack = write_stack(tmp_path, adapters=adapters, router={"classifier": "spectral"})
    assert additional(stack.expanded()) == {"lora_select": {"library_slots": 5}}


def test_without_lag_there_is_no_library(tmp_path: Path) -> None:
    command = engine_command(write_stack(tmp_path), CUDA, {}, HERE)
    assert "--additional-config" not in command.argv
    assert not any("LAG" in note for note in command.notes)


def test_a_stacks_own_additional_config_stays(tmp_path: Path) -> None:
    lag = {"library": "all"}
    own = write_stack(tmp_path, lag=lag, engine={"args": {"additional_config": {"other": 1}}})
    assert additional(own) == {"other": 1, "lora_select": {"library_slots": 4}}
    for given, says in (
        ("{}", "must be a mapping"),
        ({"lora_select": {}}, r"additional-config\.lora_select: decided by engine\.library_slots"),
    ):
        stack = write_stack(tmp_path, lag=lag, engine={"args": {"additional-config": given}})
        with pytest.raises(ConfigError, match=says):
            engine_command(stack, CPU, {}, HERE)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (CPU, [": vLLM's own gives the base's rows the last slot's adapter"]),
        (Build("0.33.0", cpu=True), [""]),
        (Build("1.0", cpu=True), [""]),
        (CUDA, []),
    ],
)
def test_who_computes_adapters_is_told(tmp_path: Path, build: Build, says: list[str]) -> None:
    notes = engine_command(write_stack(tmp_path), build, {}, HERE).notes
    start = "engine: adapters are computed by LoRA-Select's wrapper, with rows grouped by slot"
    assert [note.removeprefix(start) for note in notes if note.startswith(start)] == says


@pytest.mark.parametrize(
    ("own", "installed", "plugins"),
    [
        (None, OURS, "lora_select,lora_select_control"),
        (None, (*OURS, "bnb"), "lora_select,lora_select_control,bnb"),
        ("resolver, lora_select", (*OURS, "bnb"), "lora_select,lora_select_control,resolver"),
        ("", (*OURS, "bnb"), "lora_select,lora_select_control"),
    ],
)  # fmt: skip
def test_plugins(tmp_path: Path, own: str | None, installed: tuple[str, ...], plugins: str) -> None:
    stack = write_stack(tmp_path, engine={"env": {} if own is None else {"VLLM_PLUGINS": own}})
    command = engine_command(stack, CPU, {}, Machine(plugins=installed))
    assert command.env["VLLM_PLUGINS"] == plugins


def test_a_missing_plugin_is_told_in_one_line(tmp_path: Path) -> None:
    notes = engine_command(write_stack(tmp_path), CPU, {}, Machine(plugins=())).notes
    assert any("vllm_plugin/ is not installed" in note and "make install" in note for note in notes)


def test_arguments_that_another_key_decides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.args\.max-loras: decided by engine\.max_loras"):
        engine_command(write_stack(tmp_path, engine={"args": {"max_loras": 3}}), CUDA, {}, HERE)


# --- the command line -------------------------------------------------------------------------------------------


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_check_explains_and_starts_nothing(tmp_path: Path) -> None:
    ports = {part: {"port": free_port()} for part in ("engine", "router", "ui")}
    stack = write_stack(tmp_path, **ports)
    done = serve("check", "--config", str(stack.file))
    assert done.returncode == 0, done.stderr
    assert "--max-loras" in done.stdout
    assert (
        f"VLLM_PLUGINS=lora_select,lora_select_control {sys.executable} -m vllm.entrypoints.openai.api_server"
        in done.stdout
    )


def test_check_shows_no_secret(tmp_path: Path) -> None:
    engine = {
        "port": free_port(),
        "args": {"hf_token": "s3cret", "max-num-batched-tokens": 4096},
        "env": {"HF_TOKEN": "s3cret"},
    }
    stack = write_stack(tmp_path, engine=engine, **{part: {"port": free_port()} for part in ("router", "ui")})
    done = serve("check", "--config", str(stack.file))
    assert "s3cret" not in done.stdout + done.stderr
    assert "HF_TOKEN=(hidden)" in done.stdout
    assert "--hf-token (hidden) " in done.stdout
    assert "--max-num-batched-tokens 4096" in done.stdout


def test_check_shows_which_labels_were_found(tmp_path: Path) -> None:
    write_stack(tmp_path)
    (tmp_path / "law" / "README.md").write_text("---\ndatasets: [dzunggg/legal-qa-v1]\n---\n")
    adapters = {"law": {"path": "law"}, "med": {"path": "med", "label": "medicine"}}
    stack = write_stack(
        tmp_path, adapters=adapters, **{p: {"port": free_port()} for p in ("engine", "router", "ui")}
    )
    done = serve("check", "--config", str(stack.file))
    assert "law: label from the name of its dataset, dzunggg/legal-qa-v1: legal\n" in done.stdout
    assert "med: label" not in done.stdout
    (tmp_path / "law" / "README.md").unlink()
    done = serve("check", "--config", str(stack.file))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "adapters.law.label: missing, and neither manifest.json nor README.md" in done.stderr


def test_bad_stacks_exit_2_with_one_line(tmp_path: Path) -> None:
    stack = write_stack(tmp_path)
    (tmp_path / "base" / "config.json").unlink()
    for arguments in (["check"], ["up"], ["engine"]):
        done = serve(*arguments, "--config", str(stack.file))
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert f"{stack.file}: base.model: no config.json" in done.stderr


def test_a_broken_adapter_fails_the_check_and_nothing_else(tmp_path: Path) -> None:
    stack = write_stack(tmp_path)
    (tmp_path / "law" / "adapter_config.json").unlink()
    done = serve("check", "--config", str(stack.file))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{stack.file}: adapters.law.path: no adapter_config.json" in done.stderr
    planned = plan(stack, tmp_path)
    assert [service.name for service in planned.services] == ["engine", "router", "ui"]
    assert planned.broken == (done.stderr.removesuffix("\n"),)


def test_with_an_engine_elsewhere_the_check_says_what_is_skipped(tmp_path: Path) -> None:
    done = serve("check", "--config", str(write_stack(tmp_path, engine={"url": "http://10.0.0.1:8001"}).file))
    assert done.returncode == 0, done.stderr
    assert "engine: none started, http://10.0.0.1:8001 is used (engine.url): " in done.stdout
    assert "not checked here" in done.stdout


def test_the_check_estimates_memory(tmp_path: Path) -> None:
    ports = {part: {"port": free_port()} for part in ("router", "ui")}
    engine = {"port": free_port(), "env": {"VLLM_CPU_KVCACHE_SPACE": "9000"}}
    done = serve("check", "--config", str(write_stack(tmp_path, **ports, engine=engine).file))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^memory: base .* million parameters.*3 adapter slots of rank 8", done.stdout, re.MULTILINE)
    assert re.search(r"^memory: KV cache 256 bytes a token: 9,000 GiB hold", done.stdout, re.MULTILINE)
    assert re.search(r"^warning: memory: that is .* and this machine has", done.stdout, re.MULTILINE)


def test_a_port_in_use_exits_2_and_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("--config", str(write_stack(tmp_path, router={"port": port}).file))
    assert done.returncode == 2
    assert f"router.port: {port} on 127.0.0.1: Address already in use" in done.stderr


# --- the supervisor ---------------------------------------------------------------------------------------------


def service(folder: Path, name: str, script: str, **fields: Any) -> Service:
    """A python process that is ready once it has made the file NAME.ready."""
    ready = folder / f"{name}.ready"
    prelude = f"import os, pathlib, signal, subprocess, sys, time; ready = pathlib.Path({str(ready)!r}); "

    def probe() -> str:
        return "" if ready.exists() else "its file"

    argv = (sys.executable, "-c", prelude + script)
    return Service(name, argv, {}, folder / f"{name}.log", probe, "nowhere", **fields)


def gone(pid: int) -> bool:
    """No such process, or only its unreaped remains; a kill takes the kernel a moment."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


RUN = "ready.write_text(str(os.getpid())); time.sleep(60)"


def test_a_task_runs_when_all_are_ready_and_its_code_counts(tmp_path: Path) -> None:
    said: list[str] = []
    services = [service(tmp_path, name, RUN) for name in ("one", "two")]

    def task() -> int:
        assert all((tmp_path / f"{name}.ready").exists() for name in ("one", "two"))
        return 7

    assert Supervisor(services, said.append).run(task, stop_after_task=True) == 7
    assert all(gone(int((tmp_path / f"{name}.ready").read_text())) for name in ("one", "two"))
    assert said[-1] == "stopped: one, two"


def test_a_child_that_dies_at_start_ends_the_stack_with_its_last_lines(tmp_path: Path) -> None:
    script = (
        "print('WARNING may cause OSError: [Errno 24]', flush=True); "
        "print('RuntimeError: no memory left', flush=True); print('line\\n' * 50, flush=True); "
        "print('RuntimeError: see above'); sys.exit(3)"
    )
    (tmp_path / "dying.log").write_text("ValueError: of the day before\n")
    dying = service(tmp_path, "dying", script)
    running = service(tmp_path, "running", RUN)
    with pytest.raises(
        StartError,
        match=r"(?s)dying: ended with code 3 before it was ready: RuntimeError: no memory left\nthe end.*above$",
    ):
        Supervisor([running, dying], lambda _: None).run()
    ready = tmp_path / "running.ready"
    assert not ready.exists() or gone(int(ready.read_text()))


def test_a_child_that_dies_later_is_started_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = (
        f"count = pathlib.Path({str(count)!r}); count.open('a').write('x'); "
        f"ready.touch(); time.sleep(0.8 if len(count.read_text()) < 2 else 60); ready.unlink(); sys.exit(9)"
    )
    said: list[str] = []

    def task() -> int:
        deadline = time.monotonic() + 20
        while len(count.read_text()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(count.read_text())

    assert Supervisor([service(tmp_path, "weak", script)], said.append).run(task, stop_after_task=True) == 2
    assert any(line.startswith("weak: ended with code 9; again in 1 s") for line in said)


def test_nothing_is_left_of_a_child_that_ignores_sigterm_nor_of_its_children(tmp_path: Path) -> None:
    script = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "ready.write_text(f'{os.getpid()} {child.pid}'); time.sleep(60)"
    )
    stubborn = service(tmp_path, "stubborn", script, grace_s=0.5)
    began = time.monotonic()
    Supervisor([stubborn], lambda _: None).run(lambda: 0, stop_after_task=True)
    assert time.monotonic() - began < 8
    assert all(gone(int(pid)) for pid in (tmp_path / "stubborn.ready").read_text().split())


def test_workers_of_a_dead_leader_are_killed_before_it_is_started_again(tmp_path: Path) -> None:
    script = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "ready.with_name(f'worker.{child.pid}').touch(); ready.touch(); time.sleep(1.2); os._exit(1)"
    )

    def task() -> int:
        deadline = time.monotonic() + 20
        while len(list(tmp_path.glob("worker.*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        return 0

    Supervisor([service(tmp_path, "leader", script)], lambda _: None).run(task, stop_after_task=True)
    workers = [int(file.suffix[1:]) for file in tmp_path.glob("worker.*")]
    assert len(workers) == 2
    assert all(gone(pid) for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    note = (
        "order = ready.with_name('order'); "
        "signal.signal(signal.SIGTERM, lambda *_: (order.open('a').write(sys.argv[1]), sys.exit())); "
    )
    services = []
    for name, rank in (("e", 1), ("r", 0)):
        made = service(tmp_path, name, note + RUN, stop_rank=rank)
        services.append(Service(**{**vars(made), "argv": (*made.argv, name)}))
    threading.Timer(2, os.kill, (os.getpid(), number)).start()
    assert Supervisor(services, lambda _: None).run() == 0
    assert (tmp_path / "order").read_text() == "re"

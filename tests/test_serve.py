"""The engine's command line, the lint of a stack's files, and the supervisor with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from adapters import ConfigError, Stack, load
from serve.engine import Build, engine_command
from serve.lint import lint
from serve.process import Service
from serve.supervisor import StartError, Supervisor
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
FAULTY, FIXED, CUDA = Build("0.32.0", cpu=True), Build("0.33.0", cpu=True), Build("0.32.0", cpu=False)
BASE = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 2, "model_type": "mistral",
}  # fmt: skip


def write_adapter(folder: Path, config: dict[str, Any] | None = None, hidden: int = 64, layer: int = 0) -> None:
    folder.mkdir(parents=True)
    described = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "some/base"} | (config or {})
    (folder / "adapter_config.json").write_text(json.dumps(described))
    prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
    shapes = {"lora_A": (8, hidden), "lora_B": (64, 8)}
    tensors = {f"{prefix}.{side}.weight": np.zeros(shape, np.float32) for side, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")


def write_stack(folder: Path, **sections: Any) -> Stack:
    """A stack with a base and the adapters law and med in folders."""
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text(json.dumps(BASE))
    for name in ("law", "med"):
        if not (folder / name).exists():
            write_adapter(folder / name)
    stack = {
        "base": {"model": "base", "name": "tiny"},
        "adapters": {name: {"path": name, "label": name} for name in ("law", "med")},
    }
    file = folder / "adapters.yaml"
    file.write_text(yaml.safe_dump(stack | sections, sort_keys=False))
    return load(file)


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_the_engines_command(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, engine={"args": {"max-model-len": 512, "enforce-eager": True, "seed": None}})
    command = engine_command(stack, CUDA, {"law": 8, "med": 20}, threads=2)
    assert command.argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    assert option(command.argv, "--host") == "127.0.0.1"
    assert option(command.argv, "--served-model-name") == "tiny"
    assert option(command.argv, "--max-lora-rank") == "32"
    assert option(command.argv, "--max-model-len") == "512"
    assert "--enforce-eager" in command.argv
    assert "--seed" not in command.argv
    modules = command.argv[command.argv.index("--lora-modules") + 1 :][:2]
    assert json.loads(modules[1]) == {"name": "med", "path": str(tmp_path / "med"), "base_model_name": "tiny"}
    assert command.env["HF_HUB_OFFLINE"] == "1"
    assert "OMP_NUM_THREADS" not in command.env
    assert engine_command(stack, FIXED, {}, threads=2).env["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("build", "asked", "slots"), [(FAULTY, None, "3"), (FAULTY, 5, "6"), (FIXED, None, "2"), (CUDA, 1, "1")]
)
def test_slots_leave_the_faulty_builds_last_one_empty(
    tmp_path: Path, build: Build, asked: int | None, slots: str
) -> None:
    stack = write_stack(tmp_path, engine={"max_loras": asked})
    command = engine_command(stack, build, {}, threads=1)
    assert option(command.argv, "--max-loras") == slots
    assert any("vllm#48421" in note for note in command.notes) == build.base_row_fault


def test_fewer_slots_than_adapters_are_refused_on_the_faulty_build(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.max_loras: 1 is below the 2 adapters"):
        engine_command(write_stack(tmp_path, engine={"max_loras": 1}), FAULTY, {}, threads=1)


def test_arguments_that_another_key_decides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.args\.max-loras: decided by engine\.max_loras"):
        engine_command(write_stack(tmp_path, engine={"args": {"max_loras": 3}}), CUDA, {}, threads=1)


def test_lint_of_a_good_stack(tmp_path: Path) -> None:
    report = lint(write_stack(tmp_path))
    assert (report.findings, report.ranks) == ((), {"law": 8, "med": 8})


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "law" / "adapter_config.json").unlink(), "no adapter_config.json in .*law"),
        (lambda f: (f / "law" / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda f: (f / "law" / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors in .*law"),
        (lambda f: (f / "law" / "adapter_model.safetensors").write_bytes(b"x"), "safetensors cannot be read"),
        (lambda f: write_adapter(f / "law", {"peft_type": "IA3"}), "not a LoRA adapter"),
        (
            lambda f: (f / "law" / "adapter_config.json").write_text("[]"),
            "adapter_config.json is not a JSON object",
        ),
        (lambda f: write_adapter(f / "law", {"r": 0}), "r must be a whole number from 1 up"),
        (lambda f: write_adapter(f / "law", {"r": True}), "r must be a whole number from 1 up"),
        (
            lambda f: write_adapter(f / "law", {"rank_pattern": ["q"]}),
            "rank_pattern must map module names to ranks",
        ),
        (lambda f: write_adapter(f / "law", {"use_dora": True}), "vLLM does not serve use_dora"),
        (lambda f: write_adapter(f / "law", {"bias": "all"}), "vLLM does not serve bias"),
        (lambda f: write_adapter(f / "law", {"r": 1024}), "rank 1024 is above vLLM's limit, 512"),
        (lambda f: write_adapter(f / "law", {"rank_pattern": {"q_proj": 600}}), "rank 600 is above"),
        (lambda f: write_adapter(f / "law", hidden=128), "its q_proj reads 128 values, the base's 64"),
        (lambda f: write_adapter(f / "law", layer=7), "it has a layer 7, the base has 2 layers"),
    ],
)
def test_lint_names_what_does_not_fit(tmp_path: Path, break_it: Callable[[Path], Any], says: str) -> None:
    stack = write_stack(tmp_path)
    if break_it.__code__.co_names[0] == "write_adapter":
        for file in (tmp_path / "law").iterdir():
            file.unlink()
        (tmp_path / "law").rmdir()
    break_it(tmp_path)
    (error,) = lint(stack).errors
    assert error.key == "adapters.law.path"
    assert "\n" not in error.text
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(error.text)


def test_lint_holds_ranks_against_the_users_own_limit(tmp_path: Path) -> None:
    report = lint(write_stack(tmp_path, engine={"args": {"max_lora_rank": 4}}))
    assert [error.text for error in report.errors] == ["rank 8 is above engine.args.max-lora-rank, 4"] * 2


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
    assert f"HF_HUB_OFFLINE=1 {sys.executable} -m vllm.entrypoints.openai.api_server" in done.stdout


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
    (tmp_path / "law" / "adapter_config.json").unlink()
    for arguments in (["check"], ["up"], ["engine"]):
        done = serve(*arguments, "--config", str(stack.file))
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert f"{stack.file}: adapters.law.path: no adapter_config.json" in done.stderr


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

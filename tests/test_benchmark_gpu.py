"""`python -m benchmarks.gpu`: its sums, its texts, its engines' arguments; and the notebook way, in a process."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.document import Bar, read, result, write
from benchmarks.gpu import engines as started
from benchmarks.gpu.__main__ import kept, main, take
from benchmarks.gpu.alike import checks
from benchmarks.gpu.bars import bars
from benchmarks.gpu.blocks import (
    AFFINE,
    AUTO,
    BASE_ONLY,
    BATCHED,
    BLOCKS,
    DIRECT,
    KNOWN,
    LORA_ON,
    ONE,
    TUNED,
    WITH_LAG,
    block,
)  # fmt: skip
from benchmarks.gpu.engines import LAG, LORA, MANY, PLAIN, Engine, adapter_names, argv, engines, environment
from benchmarks.gpu.model import MISTRAL_7B, TINY, make_adapter, make_base, spread, subjects
from benchmarks.gpu.options import BLOCKS as NAMES
from benchmarks.gpu.options import parse
from benchmarks.gpu.plan import CPU, GPU
from benchmarks.gpu.report import NOT_YET, plot, tables
from benchmarks.gpu.routers import Router, subjects_of
from benchmarks.gpu.stand import Asker, Stand
from benchmarks.gpu.texts import Texts
from benchmarks.notebook import Boot, Notebook, Work, batches
from benchmarks.processes import BenchmarkError, Fleet
from benchmarks.throughput.load import Driver
from record.origin import ROOT, Gpu, origin
from router.classify.embedding import split
from tests.stack import ADMIN_KEY, DEMO, Running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_base(folder / "base", TINY)
    for seed, name in enumerate(adapter_names(CPU)[:2]):
        make_adapter(folder / name, TINY, seed)
    return folder


def test_it_is_mistral_7b_and_the_recipes_adapter() -> None:
    assert MISTRAL_7B.parameters == 7_241_732_096
    assert MISTRAL_7B.adapter == 6_815_744
    assert MISTRAL_7B.kv_token == 131_072
    # A step reads all but the table of embeddings, which is looked up.
    assert MISTRAL_7B.step(0) == pytest.approx(2 * (7_241_732_096 - 32_000 * 4096), rel=1e-4)
    assert MISTRAL_7B.step(64 * 192) - MISTRAL_7B.step(0) == 64 * 192 * 131_072


def test_every_id_is_a_text(models: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    assert len(tokenizer) == TINY.vocabulary
    said = {tokenizer.decode([number]) for number in range(300, TINY.vocabulary)}
    assert len(said) == TINY.vocabulary - 300
    assert all(said)


def test_texts_are_new_even_and_of_a_length(models: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    names = adapter_names(CPU)
    asked = Texts(models / "base" / "tokenizer.json", subjects_of(CPU)).fresh(names, 40, 96)
    assert Counter(one.model for one in asked) == dict.fromkeys(names, 10)
    assert len({one.text for one in asked}) == 40
    turns = [[{"role": "user", "content": one.text}] for one in asked]
    lengths = [len(ids) for ids in tokenizer.apply_chat_template(turns)["input_ids"]]
    assert min(lengths) >= 90
    assert max(lengths) <= 96


def test_subjects_are_enough_for_all_adapters() -> None:
    labels = spread(subjects(), GPU.most)
    assert len({phrase for label in labels for phrase in label}) > 5 * GPU.most
    assert min(map(len, labels)) >= 3
    with pytest.raises(ValueError, match="1000 adapters need 1000 subjects"):
        spread(subjects(), 1000)


def test_engines_differ_in_what_is_compared(tmp_path: Path) -> None:
    started = {one.name: argv(one, GPU, tmp_path, 1) for one in engines(GPU)}
    assert list(started) == [PLAIN, LORA, LAG, MANY]
    assert not [word for word in started[PLAIN] if "lora" in word]
    common = [word for word in started[PLAIN] if word.startswith("--")]
    assert all(set(common) <= set(words) for words in started.values())
    assert "--enforce-eager" not in common  # CUDA graphs are on
    assert value(started[MANY], "--max-loras") == "128"
    assert sum(word.startswith('{"name"') for word in started[MANY]) == 128
    assert "--lora-target-modules" in started[MANY]
    assert "--lora-target-modules" not in started[LORA]
    virtual = [json.loads(word) for word in started[LAG] if word.startswith('{"name": "lag')]
    assert [one["name"] for one in virtual] == ["lag", "lag-8-1", "lag-8-8", "lag-4-4"]
    assert json.loads(virtual[3]["path"].removeprefix("lag:"))["k"] == 4
    plugins = [environment(one, GPU)["VLLM_PLUGINS"] for one in engines(GPU)]
    assert plugins == ["", "", "lora_select", ""]
    assert [one.roles for one in engines(CPU)] == [(PLAIN, LORA, LAG, MANY)]


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_they_fit_into_80_gb() -> None:
    slot = 16 * 2 * sum(
        4096 + out for out in (4096, 1024, 1024, 4096, 14336, 14336)
    ) * 32 + 16 * 2 * 32 * (14336 + 4096)  # fmt: skip
    narrow = 16 * 2 * 32 * (3 * 4096 + 4096 + 2 * 1024)
    slots = (GPU.slots + 1 + len(GPU.lags) + 3 + GPU.library) * slot + (GPU.many + 1) * narrow
    other = 2.0e9  # of each: CUDA's context, graphs, activations of a step
    assert 4 * (2 * MISTRAL_7B.parameters + GPU.kv_bytes + other) + slots < 81_559 * 2**20
    assert GPU.kv_bytes > (GPU.concurrency + 1) * (GPU.prompt + GPU.output) * MISTRAL_7B.kv_token


def turns(**speeds: float) -> dict[str, Any]:
    def spread_of(one: float) -> dict[str, Any]:
        return {"median": one, "low": one, "high": one, "rounds": 5}

    return {
        name: {
            "turns": {"tokens_per_s": [speed] * 5},
            "tokens_per_s": spread_of(speed),
            "ttft_ms": {percent: spread_of(20.0) for percent in ("p50", "p95", "p99")},
            "itl_ms": {"p50": spread_of(6.0)},
        }
        for name, speed in speeds.items()
    }


def cells(block: str, targets: dict[str, Any], **facts: Any) -> dict[str, Any]:
    told = {"name": block, "targets": targets, "left_out": {}, "adapters": 8, "concurrency": 64, **facts}
    return {"cells": [told]}


@pytest.fixture
def sections() -> dict[str, Any]:
    modes = turns(**{BASE_ONLY: 5000.0, DIRECT: 4600.0, AUTO: 4550.0, WITH_LAG: 2000.0})
    book = turns(**{AUTO: 4550.0, ONE: 30.0, BATCHED: 220.0})
    for name in (ONE, BATCHED):  # a notebook streams nothing
        del book[name]["ttft_ms"], book[name]["itl_ms"]
    read = {"phase": "decode", "rows": 1, "bytes": 14_000_000_000}
    return {
        "modes": cells("modes", modes),
        "notebook": cells("notebook", book),
        "roofline": cells("decode 1", turns(**{BASE_ONLY: 160.0}), **read)
        | {"roof": {"bytes_per_s": 3e12, "flop_per_s": 8e14, "device": "H100"}},
        "cliff": {"why": "3 s were left, of 45 s that it takes"},
    }


def test_limits(sections: dict[str, Any]) -> None:
    assert {bar.passed for bar in bars({})} == {None}
    found = bars(sections)
    assert [bar.passed for bar in found] == [True, True, True, False, False, True]
    assert found[2].value == pytest.approx(4550 / 30)
    assert found[5].value == pytest.approx(6.0 / (14 / 3))
    assert Bar("any", 1.4, most=1.4).passed


def test_tables_and_plot(sections: dict[str, Any], tmp_path: Path) -> None:
    assert list(tables({})) == [NOT_YET]
    engine = {"name": "lag", "slots": 5, "adapters": 1, "boot_s": None, "why": "lag ended with code 1: no"}
    document = result("gpu", origin("benchmarks.gpu", [], ()), GPU, 1.0, sections, bars(sections))
    text = "\n".join(tables(document | {"engines": [engine], "checks": {"lag and the base": None}}))
    assert "lag ended with code 1: no" in text
    assert "lag and the base: not measured" in text
    assert "not measured: 3 s were left" in text
    assert re.search(r"MISSED +lag, speed of fixed adapters +at least 0.85 times +0.4348", text)
    assert "memory 3 TB/s (a copy), matrices 800 TFLOP/s (H100)" in text
    plot(document, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").stat().st_size > 5000


def test_what_a_file_has_is_kept(sections: dict[str, Any], tmp_path: Path) -> None:
    file, then = tmp_path / "gpu.json", origin("benchmarks.gpu", [], ())
    assert kept(file, "cuda", then) == ({}, {})
    then = replace(then, commit="a" * 40, versions={"vllm": "1"})
    write(result("gpu", then, GPU, 1.0, sections, bars(sections)), file)
    now = replace(then, commit="b" * 40)
    document, left = kept(file, "cuda", now)
    assert document["sections"]["cliff"]["why"]
    assert list(left) == ["modes", "notebook", "roofline"]
    assert {one["commit"] for one in left.values()} == {then.commit}

    write(result("gpu", now, GPU, 1.0, left, []) | {"engines": []}, file)
    text = "\n".join(tables(read(file)))
    assert text.count(f"commit {'a' * 12})") == 3, "a block says which run it is of"
    again = kept(file, "cuda", now)[1]
    assert {one["commit"] for one in again.values()} == {then.commit}

    other = replace(then.machine, gpus=(Gpu("another", 80.0),))
    for run in (replace(then, versions={"vllm": "2"}), replace(then, machine=other)):
        assert kept(file, "cuda", run) == ({}, {})
    assert kept(file, "cpu", then) == ({}, {})
    file.write_text('{"sections":', encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"gpu\.json: no result that can be read"):
        kept(file, "cuda", now)


def test_a_block_that_cannot_be_measured_again_stays() -> None:
    sections: dict[str, Any] = {"lag": {"cells": [1]}, "cliff": {"why": "no time"}}
    take(sections, "lag", {"why": "3 s were left"})
    take(sections, "cliff", {"why": "1 s was left"})
    take(sections, "modes", {"cells": [2]})
    assert sections == {"lag": {"cells": [1]}, "cliff": {"why": "1 s was left"}, "modes": {"cells": [2]}}
    take(sections, "lag", {"cells": [3]})
    assert sections["lag"] == {"cells": [3]}


def test_options() -> None:
    assert tuple(BLOCKS) == NAMES == tuple(GPU.allotted) == tuple(CPU.allotted)
    assert parse([]).out == ROOT / "benchmarks" / "results" / "gpu.json"
    assert parse(["--cpu"]).out is None
    assert parse(["--block", "cliff", "--block", "modes"]).blocks == ("modes", "cliff")
    assert (parse(["--block", "cliff"]).again, parse([]).again, parse([]).blocks) == (("cliff",), (), NAMES)
    assert parse(["--engine-arg=-O1"]).engine == ("-O1",)


def test_a_batch_is_of_one_adapter() -> None:
    asked = [("1", "a"), ("2", "b"), ("3", "a"), ("4", "a"), ("5", "b"), ("6", "c")]
    assert list(batches(asked, 1)) == [(name, [text]) for text, name in asked]
    assert list(batches(asked, 2)) == [("a", ["1", "3"]), ("b", ["2", "5"]), ("a", ["4"]), ("c", ["6"])]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="module")
def notebook(fleet: Fleet) -> Notebook:
    return Notebook(fleet)


def test_a_notebook_answers_one_by_one_and_in_batches(models: Path, notebook: Notebook) -> None:
    adapters = {name: str(models / name) for name in adapter_names(CPU)[:2]}
    notebook.load(Boot(str(models / "base"), adapters, random=True, threads=1))
    work = Work([(f"text {number}", name) for number in range(3) for name in (*adapters, "base")], 4, chat=True)
    one, batched = notebook.run(work), notebook.run(replace(work, batch=3))
    assert (one.requests, one.tokens, batched.requests) == (9, 36, 9)
    assert notebook.run(replace(work, limit_s=0)).requests == 1
    with pytest.raises(BenchmarkError, match=r"notebook ended with code 1: ValueError: .*max_new_tokens"):
        notebook.run(replace(work, tokens=0))


def test_blocks_on_a_real_stack(running: Running, fleet: Fleet, notebook: Notebook, driver: Driver) -> None:
    """The demo's engine in every role, its router as the one before it."""
    names = tuple(running.stack.adapters)
    plan = replace(CPU, active=len(names), counts=(len(names),), rounds=1, waves=1)
    engine = Engine("engine", (PLAIN, LORA, LAG, MANY), names)
    up = started.Running(engine, running.stack.engine_url, [], running.supervisor, 0.0, 1.0, "")
    router = Router("router", len(names), running.stack.router_url, running.supervisor, "", ADMIN_KEY)
    subjects = {name: split(adapter.label or "") for name, adapter in running.stack.adapters.items()}
    texts = Texts(DEMO / "base" / "tokenizer.json", subjects)
    stand = Stand(
        plan, fleet, DEMO, dict.fromkeys(engine.roles, up), {(LORA, len(names)): router}, Asker(fleet, driver),
        notebook, texts, names, base=running.stack.base.name,
    )  # fmt: skip
    stand.learn()
    assert set(checks(stand).values()) == {True}
    until = time.monotonic() + 60
    (modes,) = block(stand, "modes", until)["cells"]
    speeds = {name: one["tokens_per_s"]["median"] for name, one in modes["targets"].items()}
    assert list(speeds) == [BASE_ONLY, LORA_ON, DIRECT, AUTO, KNOWN, WITH_LAG, TUNED]
    assert min(speeds.values()) > 0
    assert modes["targets"][AUTO]["agreed"]["median"] == 1
    found = bars({"modes": {"cells": [modes]}})
    assert [bar.value is None for bar in found] == [False, False, True, True, False, True]
    up.why = "it was killed"
    assert block(stand, "cliff", until) == {
        "why": "; ".join(f"{name}: its engine or router is not up" for name in (DIRECT, AFFINE))
    }


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("sys.argv", ["gpu", "--out", "/dev/null"])
    assert main() == 1
    assert "nvidia-smi shows no GPU; with --cpu" in capsys.readouterr().err

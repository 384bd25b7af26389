"""`python -m benchmarks.throughput` and `cliff`: loads, what is checked, sums, and a drive of the real stack."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from adapters import load
from benchmarks import stacks
from benchmarks.cliff import plan as cliff_plan
from benchmarks.cliff import report as cliff_report
from benchmarks.cliff.engines import ALL, IN_MEMORY, ON_DISK, room
from benchmarks.cliff.options import parse as parse_cliff
from benchmarks.document import Bar, rounded, write
from benchmarks.load import Latency
from benchmarks.processes import BenchmarkError
from benchmarks.throughput import report, subjects
from benchmarks.throughput.bars import bars
from benchmarks.throughput.driver import arguments, seen
from benchmarks.throughput.load import Asked, Driver, Load, Seen, Target, grouped, taken, uniform, zipf
from benchmarks.throughput.options import SECTIONS, parse
from benchmarks.throughput.plan import FULL
from benchmarks.throughput.rounds import AUTO, Cell, Measured, interleaved, told
from benchmarks.throughput.watch import Said, Watch, apart
from record.origin import ROOT
from tests.stack import ADMIN_KEY, Running

ONE, TWO = Asked("one?", "a"), Asked("two?", "b")


def test_shares_of_a_load() -> None:
    texts = {name: [f"{name}{number}" for number in range(3)] for name in "abcd"}
    assert Counter(one.model for one in uniform(texts, 10)) == {"a": 3, "b": 3, "c": 2, "d": 2}
    assert Counter(one.model for one in zipf(texts, 25)) == {"a": 12, "b": 6, "c": 4, "d": 3}
    own = [one.text for one in uniform(texts, 16) if one.model == "a"]
    assert own == ["a0", "a1", "a2", "a0"]
    assert uniform(texts, 16) != uniform(texts, 16, seed=1)
    mixed = uniform(texts, 16)
    assert [one.model for one in grouped(mixed)] == [*"aaaabbbbccccdddd"] != [one.model for one in mixed]
    assert taken(Load((ONE, TWO), 1, 3, 8)) == [ONE, TWO, ONE]


def test_texts_that_no_cache_holds() -> None:
    texts = subjects.texts(32)
    assert len(texts) == 32
    assert all(len(set(own)) == subjects.EACH for own in texts.values())
    turns = [subjects.fresh(texts, 40, seed) for seed in ("1 at once, round 0", "32 at once, round 0")]
    every = [text for turn in turns for own in turn.values() for text in own]
    assert len(set(every)) == len(every) == 2 * 32 * 40


def test_each_requests_own_model_in_order() -> None:
    load_ = Load((ONE, TWO), 2, 3, 8)
    words = arguments(Target("direct", "http://x"), load_, taken(load_), Path("prompts.jsonl"))
    assert words[-5:] == ["round-robin", "--lora-modules", "a", "b", "a"]
    words = arguments(Target("auto", "http://x", "auto"), load_, taken(load_), Path("prompts.jsonl"))
    assert words[words.index("--model") + 1] == "auto"
    assert "--lora-modules" not in words


def test_an_answer_of_another_length_is_a_failure() -> None:
    found = {
        "output_lens": [4, 3, 0], "errors": ["", "", "Traceback\n  here\nValueError: no"], "duration": 2.0,
        "ttfts": [0.1, 5.0, 0.0], "itls": [[0.0, 0.01, 0.02], [9.0], []],
    }  # fmt: skip
    got = seen(found, Load((ONE,), 1, 3, 4))
    assert (got.requests, got.failed, got.tokens_per_s, got.why) == (1, 2, 2.0, "3 tokens instead of 4")
    assert (got.ttft_ms.p99, got.itl_ms.p50, got.itl_ms.count) == (100, 10, 3)
    assert seen(found | {"output_lens": [4, 4, 0]}, Load((ONE,), 1, 3, 4)).why == "ValueError: no"


@pytest.mark.parametrize(
    ("model", "tokens", "near_nats", "why"),
    [
        ("a", "xyz", 0.0, None),
        ("b", "xyz", 1.0, "b answered instead of a"),
        ("a", "xqz", 0.0, "a: token 1 is 'q' instead of 'y'"),
        ("a", "xqq", 0.1, None),
        ("a", "xwz", 0.1, "a: token 1 is 'w' instead of 'y'"),
        ("a", "xy", 0.0, "a: 2 tokens"),
    ],
)
def test_what_counts_as_another_answer(model: str, tokens: str, near_nats: float, why: str | None) -> None:
    candidates = ({"x": -0.1}, {"y": -1.0, "q": -1.05, "w": -3.0}, {"z": -0.1})
    assert apart(Said("a", tuple("xyz"), candidates), Said(model, tuple(tokens), candidates), near_nats) == why


def test_stacks_are_written_as_the_project_reads_them(tmp_path: Path) -> None:
    names = list(subjects.texts(5))
    folders = stacks.adapter_folders(tmp_path / "adapters", names)
    assert {name: folder.resolve().name for name, folder in folders.items()} == {
        "legal": "legal", "medical": "medical", "finance": "finance", "cooking": "finance", "gardening": "legal",
    }  # fmt: skip
    engine = {"max_loras": 2, "args": {"max-cpu-loras": 3}}
    stack = load(
        stacks.write_stack(tmp_path / "s.yaml", folders, dict.fromkeys(names, "any"), (7001, 7002), engine=engine)
    )
    assert (list(stack.adapters), stack.engine.max_loras, stack.router.port) == (names, 2, 7002)
    assert stack.engine_args == stacks.ARGS | {"max-cpu-loras": 3}


def latency(p50: float) -> Latency:
    return Latency(p50, 2 * p50, 3 * p50, 4 * p50, 100)


def measured(
    facts: dict[str, object], at: int, speeds: dict[str, list[float]], reference: str = "direct"
) -> Measured:
    targets = tuple(Target(name, "", None) for name in speeds)
    found = Measured(Cell("a cell", targets, lambda _: Load((ONE,), at, 9, 4), facts, reference))
    for name, turns in speeds.items():
        of = {
            turn: Seen(one, one / 4, latency(1e3 / one), latency(1), 9, 0, 1.0) for turn, one in enumerate(turns)
        }
        found.seen[name] = of
    return found


@pytest.fixture
def document() -> dict[str, object]:
    """As a run makes it."""
    three = {"active": 3, "skew": "uniform", "texts": "known"}
    ways = {"direct": [100.0, 200.0], "auto": [99.0, 200.0], "base": [110.0, 220.0]}
    sections = {
        "concurrency": [told(measured(three, at, ways)) for at in (1, 32)],
        "uncached": [told(measured(three, 32, {"direct": [100.0], "auto": [90.0]}))],
        "adapters": [
            told(measured({"active": active, "skew": skew, "texts": "known"}, 32, ways))
            for active in (1, 8)
            for skew in ("uniform", "Zipf 1.0")
        ],
        "notebook": [told(measured(three, 32, {"notebook, one by one": [10.0, 10.0]}))],
    }
    machine = {"cpu": "any", "cores": 2, "memory_gb": 8}
    limits = [vars(bar) | {"pass": bar.passed} for bar in bars(sections)]
    return {"machine": machine, "load_before": 0.1, "sections": sections, "bars": limits}


def test_bars(document: dict[str, object]) -> None:
    found = {bar.name: bar for bar in bars(document["sections"])}  # type: ignore[arg-type]
    assert [(bar.value, bar.passed) for bar in found.values()][:2] == [(0.995, True), (0.9, False)]
    assert found["tokens/s of auto, 32 at once, of the notebook's one by one"].value == pytest.approx(14.95)
    added = found["p50 time to first token, added by auto, known texts, 1 at once"]
    assert added.value == pytest.approx(0.5 * (1e3 / 99 - 10))
    assert {bar.passed for bar in bars({})} == {None}
    assert not Bar("any", 15.1, most=15, unit="ms").passed


def test_tables_and_plots(document: dict[str, object], tmp_path: Path) -> None:
    lines = [line for line in report.tables(document) if "auto, of direct's, 32 at once, new texts" in line]
    assert [("MISSED" in line, "0.9" in line, "at least 0.98 times" in line) for line in lines] == [
        (True, True, True)
    ]
    report.plot(document, tmp_path / "one.png")
    cells = [
        told(
            measured(
                {"in_use": 4 * times, "times": times, "order": order},
                16,
                {ALL: [100.0], ON_DISK: [100.0 / times]},
                ALL,
            )
        )
        for times in (1, 2)
        for order in ("r", "g")
    ]
    section = {"engines": {}, "cells": cells}
    of_cliff = document | {"sections": {"cliff": section}}
    assert f"{ON_DISK}, g: from 2 times the slots on" in "\n".join(cliff_report.tables(of_cliff))
    cliff_report.plot(of_cliff, tmp_path / "two.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("one.png", "two.png"))


def test_the_cliff_begins_where_it_stays_slower() -> None:
    cells = [
        {"times": times, "order": "r", "targets": {ALL: {}, ON_DISK: {"speed_of_reference": {"median": speed}}}}
        for times, speed in ((4, 0.7), (1, 0.8), (1.5, 0.89), (2, 0.95), (3, 0.89))
    ]
    assert cliff_report.begins(cells) == {ON_DISK: {"r": 3}}
    assert cliff_report.begins(cells[1:4]) == {ON_DISK: {"r": None}}


def test_options_and_plans(tmp_path: Path) -> None:
    assert parse([]).output == ROOT / "benchmarks" / "results" / "throughput.json"
    assert (parse(["--quick"]).output, parse(["--section", "merged"]).sections) == (None, ("merged",))
    assert parse([]).sections == SECTIONS
    assert parse_cliff([]).output == ROOT / "benchmarks" / "results" / "cliff.json"
    assert (FULL.many, FULL.requests(8)) == (32, 32)
    written = tmp_path / "plans.json"
    write({"plans": [rounded(asdict(plan)) for plan in (FULL, cliff_plan.FULL)]}, written)
    assert json.loads(written.read_text(encoding="utf-8"))["plans"][1]["times"] == [1, 1.5, 2, 4]
    assert cliff_plan.FULL.in_use == (4, 6, 8, 16)
    assert room(cliff_plan.FULL) == {ALL: (16, 16), IN_MEMORY: (4, 16), ON_DISK: (4, 4)}


def test_a_real_drive(running: Running, driver: Driver) -> None:
    engine, router = running.stack.engine_url, running.stack.router_url
    direct, auto = Target("direct", engine), Target(AUTO, router, AUTO, ADMIN_KEY)
    texts = subjects.texts(3)
    asked = uniform(texts, 6)
    watch = Watch(tokens=4, pause_s=0.05)
    for target in (direct, auto):
        watch.learn(target, asked[:2])
    assert watch.see_the_same(direct, auto) == 2
    cell = Cell("few", (direct, auto), lambda _: Load(asked, 3, 6, 5), {"active": 3}, "direct")
    lines: list[str] = []
    (found,) = interleaved(driver, [cell], 1, watch, lines.append)
    assert lines == ["warm-up: few (1 of 1)", "round 1 of 1: few (1 of 1)"]
    assert watch.checked >= 2
    as_json = json.loads(json.dumps(told(found)))
    assert as_json["targets"]["auto"]["agreed"]["median"] == 1
    assert as_json["targets"]["auto"]["speed_of_reference"]["rounds"] == 1
    seen_ = found.seen["direct"][0]
    assert (seen_.requests, seen_.failed) == (6, 0)
    assert seen_.tokens_per_s == pytest.approx(30 / seen_.took_s)
    assert seen_.ttft_ms.count == 6

    wrong = driver.run(direct, Load((replace(ONE, model="nobody"),), 1, 1, 5))
    assert (wrong.failed, wrong.why) == (1, "Not Found")


def test_another_answer_under_load_is_an_error(running: Running) -> None:
    direct = Target("direct", running.stack.engine_url)
    watch = Watch(tokens=4)
    legal, medical = (Asked(own[0], name) for name, own in list(subjects.texts(2).items()))
    watch.learn(direct, [legal, replace(medical, text=legal.text)])
    known = watch._known["direct"]
    known[legal] = replace(known[replace(medical, text=legal.text)], model="legal")
    with (
        pytest.raises(BenchmarkError, match="direct: under load legal: token 0 is"),
        watch.beside(direct, Load((legal,), 1, 1, 1)),
    ):
        pass

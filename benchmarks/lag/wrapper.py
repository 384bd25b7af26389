"""Section `wrapper`: the plugin's CPU wrapper beside stock vLLM and vLLM without LoRA, and LAG beside them."""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lag.base import RANK, make_adapter, make_base
from benchmarks.lag.jobs import BASE, EACH, LAG, ONE, Answer, Boot, EngineProcess, Job
from benchmarks.lag.plan import Plan
from benchmarks.processes import BenchmarkError, Fleet
from benchmarks.stats import Spread, ratios, rotated

WITHOUT, STOCK, OURS, WITH_LAG = "no LoRA", "stock", "ours", "ours with LAG"
WRAPPERS = {WITHOUT: "", STOCK: "PunicaWrapperCPU", OURS: "GroupedPunica", WITH_LAG: "GroupedPunica"}
PREFILL, DECODE = "prefill", "decode"
SAME_NATS = 1e-3
"""Two ways of adding up float32 may differ by so much."""

SHORT_PROMPT = 16
FIRST_STEPS = 2
"""The prefill, and the step after which the rows of a batch do not change any more."""

Times = dict[str, dict[int, tuple[float, float]]]
"""By engine and round: milliseconds of the clock and of the CPU."""


def section(plan: Plan) -> dict[str, Any]:
    """Every case on every engine that knows it, in rounds. Raises BenchmarkError."""
    with tempfile.TemporaryDirectory(prefix="lag-") as folder, Fleet(Path(folder)) as fleet:
        engines = _start(plan, Path(folder), fleet)
        apart = _see_the_same(plan, engines)
        found: dict[tuple[str, str, int], Times] = defaultdict(lambda: defaultdict(dict))
        for turn in range(plan.rounds):
            _say(f"round {turn + 1} of {plan.rounds}")
            for phase, who, size in cases(plan):
                for engine in rotated([one for one in engines if knows(one.name, who)], turn):
                    found[phase, who, size][engine.name][turn] = _timed(engine, plan, phase, who, size)
    return {
        "parameters": plan.shape.parameters,
        "adapters": plan.adapters,
        "rank": RANK,
        "k": plan.k,
        "apart_nats": apart,
        "cases": [_told(*case, times) for case, times in found.items()],
    }


def cases(plan: Plan) -> list[tuple[str, str, int]]:
    """Phase, whose rows, and how many tokens (prefill) or rows (decode)."""
    prefills = [(PREFILL, who, plan.prompt) for who in (BASE, ONE, LAG)]
    return prefills + [
        (DECODE, who, rows)
        for who in (BASE, ONE, EACH, LAG)
        for rows in plan.batches
        if who != EACH or rows > 1  # it would be the same
    ]


def knows(engine: str, who: str) -> bool:
    """Whether it can be asked for that."""
    return who == BASE or engine == WITH_LAG or (engine != WITHOUT and who != LAG)


def _start(plan: Plan, folder: Path, fleet: Fleet) -> list[EngineProcess]:
    _say(f"a base of {plan.shape.parameters / 1e6:.0f} M parameters and {plan.adapters} adapters")
    base = str(make_base(folder / "base", plan.shape))
    adapters = [str(make_adapter(folder / f"a{seed}", plan.shape, seed)) for seed in range(plan.adapters)]
    rows = max(plan.batches)
    boots = {
        WITHOUT: ("", Boot(base, rows)),
        STOCK: ("", Boot(base, rows, adapters, RANK)),
        OURS: ("lora_select", Boot(base, rows, adapters, RANK)),
        WITH_LAG: ("lora_select", Boot(base, rows, adapters, RANK, plan.k)),
    }
    engines = []
    for name, (plugins, boot) in boots.items():
        _say(f"{name}: starting")
        engines.append(EngineProcess(fleet, name, plugins, boot))
        if (wrapper := engines[-1].wrapper) != WRAPPERS[name]:
            raise BenchmarkError(f'{name}: its adapters are applied by "{wrapper}", not by "{WRAPPERS[name]}"')
    return engines


def _see_the_same(plan: Plan, engines: Sequence[EngineProcess]) -> float:
    """How far the engines' log-probabilities are apart, base and adapters. Raises BenchmarkError."""
    worst = 0.0
    for who, rows in ((BASE, 2), (EACH, plan.adapters)):
        job = Job(who, rows, SHORT_PROMPT, 1, logprobs=True)
        first, *others = [engine.run(job).said for engine in engines if knows(engine.name, who)]
        for other in others:
            if [token for token, _ in first] != [token for token, _ in other]:
                raise BenchmarkError("the engines do not say the same")
            worst = max(worst, *(abs(one[1] - two[1]) for one, two in zip(first, other, strict=True)))
    if worst > SAME_NATS:
        raise BenchmarkError(f"the engines are {worst:.3g} nats apart, more than {SAME_NATS}")
    return worst


def _timed(engine: EngineProcess, plan: Plan, phase: str, who: str, size: int) -> tuple[float, float]:
    if phase == PREFILL:
        answer = engine.run(Job(who, 1, size, 1))
        return answer.ms[0], answer.cpu_ms[0]
    return _steady(engine.run(Job(who, size, SHORT_PROMPT, FIRST_STEPS + plan.steps)))


def _steady(answer: Answer) -> tuple[float, float]:
    return median(answer.ms[FIRST_STEPS:]), median(answer.cpu_ms[FIRST_STEPS:])


def _told(
    phase: str, who: str, size: int, times: Mapping[str, Mapping[int, tuple[float, float]]]
) -> dict[str, Any]:
    cpu = {name: {turn: both[1] for turn, both in rounds.items()} for name, rounds in times.items()}
    engines = {
        name: {
            "ms": asdict(Spread.of([both[0] for both in rounds.values()])),
            "cpu_ms": asdict(Spread.of([both[1] for both in rounds.values()])),
            "cpu_of": {
                other: asdict(Spread.of(ratios(cpu[name], cpu[other]))) for other in times if other != name
            },
        }
        for name, rounds in times.items()
    }
    return {"phase": phase, "who": who or "base", "size": size, "engines": engines}


def _say(line: str) -> None:
    print(f"wrapper: {line}", file=sys.stderr, flush=True)

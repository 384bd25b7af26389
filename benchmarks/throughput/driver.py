"""`python -m benchmarks.throughput.driver`: a target and a load on each line of stdin, what was seen on stdout.

vLLM's own load client, `vllm.benchmarks.serve`, does the asking, through the arguments of its own parser. Where
each request names a model of its own, `--lora-modules` lists one name per request, and `--lora-assignment
round-robin` deals them out in that order. The number of output tokens goes into the body, so that no tokenizer is
needed; what the client reports as the length of an answer is then the `usage` that the engine has sent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from benchmarks.load import CHAT, Latency
from benchmarks.stats import percentile
from benchmarks.throughput.load import Asked, Load, Seen, Target, taken


def arguments(target: Target, load: Load, asked: Sequence[Asked], prompts: Path) -> list[str]:
    """Of `vllm bench serve`."""
    body = {"max_completion_tokens": load.output_tokens, "temperature": 0}
    words = [
        "--backend", "openai-chat", "--endpoint", CHAT, "--base-url", target.url,
        "--model", target.model or asked[0].model, "--skip-tokenizer-init",
        "--dataset-name", "custom", "--dataset-path", str(prompts), "--disable-shuffle",
        "--num-prompts", str(load.requests), "--max-concurrency", str(load.concurrency),
        "--ignore-eos", "--extra-body", orjson.dumps(body).decode(), "--save-detailed",
        "--num-warmups", "0", "--ready-check-timeout-sec", "0", "--disable-tqdm",
    ]  # fmt: skip
    if target.model is None:
        words += ["--lora-assignment", "round-robin", "--lora-modules", *(one.model for one in asked)]
    return words


def seen(found: dict[str, Any], load: Load) -> Seen:
    """From the client's detailed result; an answer of another length is a failure."""
    lengths = found["output_lens"]
    wrong = [place for place, length in enumerate(lengths) if length != load.output_tokens]
    why = ""
    if wrong:
        error = str(found["errors"][wrong[0]]).strip().rpartition("\n")[2]
        why = error or f"{lengths[wrong[0]]} tokens instead of {load.output_tokens}"
    took = found["duration"]
    right = [place for place in range(len(lengths)) if place not in set(wrong)]
    return Seen(
        len(right) * load.output_tokens / took,
        len(right) / took,
        _latency([found["ttfts"][place] for place in right]),
        _latency([gap for place in right for gap in found["itls"][place]]),
        len(right),
        len(wrong),
        took,
        why,
    )


def _latency(seconds: Sequence[float]) -> Latency:
    ordered = sorted(1e3 * one for one in seconds)
    p50, p95, p99 = (percentile(ordered, percent) for percent in (50, 95, 99))
    return Latency(p50, p95, p99, max(ordered, default=0.0), len(ordered))


class Client:
    """The imported client and its parser."""

    def __init__(self, folder: Path) -> None:
        from vllm.benchmarks import serve

        self._serve: Any = serve
        self._prompts = folder / "prompts.jsonl"
        make = getattr(serve, "FlexibleArgumentParser", argparse.ArgumentParser)  # which, moved between versions
        self._parser: argparse.ArgumentParser = make()
        self._serve.add_cli_args(self._parser)

    def run(self, target: Target, load: Load) -> Seen:
        """One load, until its last answer."""
        asked = taken(load)
        self._prompts.write_bytes(b"".join(orjson.dumps({"prompt": one.text}) + b"\n" for one in asked))
        args = self._parser.parse_args(arguments(target, load, asked, self._prompts))
        return seen(self._serve.main(args), load)


def job(line: bytes) -> tuple[Target, Load]:
    """What a line of stdin asks for."""
    given = orjson.loads(line)
    asked = tuple(Asked(**one) for one in given["load"].pop("asked"))
    return Target(**given["target"]), Load(asked=asked, **given["load"])


def main() -> int:
    """Until stdin ends."""
    with os.fdopen(os.dup(1), "wb") as out, tempfile.TemporaryDirectory(prefix="load-") as folder:
        os.dup2(2, 1)  # the client talks on stdout
        client = Client(Path(folder))
        for line in sys.stdin.buffer:
            try:
                answer = asdict(client.run(*job(line)))
            except (Exception, SystemExit) as error:  # its own errors are of many kinds; a parser's ends a process
                answer = {"error": f"{type(error).__name__}: {error}"}
            out.write(orjson.dumps(answer) + b"\n")
            out.flush()
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())

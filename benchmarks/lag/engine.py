"""`python -m benchmarks.lag.engine`: vLLM in one process, and the time of each of its steps.

A `Boot` as JSON on the first line of stdin, a job on each further one; an answer to each on stdout.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from itertools import count, cycle, islice
from typing import Any

import orjson

from benchmarks.lag.jobs import EACH, LAG, Answer, Boot, Job

VOCABULARY_USED = 1000


class Engine:
    """One model, asked step by step."""

    def __init__(self, boot: Boot) -> None:
        from vllm import LLM

        settings: dict[str, Any] = {}
        if boot.adapters:
            settings = {"enable_lora": True, "max_loras": len(boot.adapters), "max_lora_rank": boot.rank}
        if boot.k:
            settings["additional_config"] = {"lora_select": {"library_slots": len(boot.adapters)}}
        self._llm = LLM(
            boot.base, skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024,
            max_num_seqs=boot.rows, max_num_batched_tokens=1024, enable_prefix_caching=False,
            disable_log_stats=True, seed=0, **settings,
        )  # fmt: skip
        self._numbers = count()
        self._adapters, self._lag = _requests(boot)
        for request in [*self._adapters, *self._lag]:
            self._llm.llm_engine.add_lora(request)

    @property
    def wrapper(self) -> str:
        """The class that applies adapters, "" where there are none."""
        if not self._adapters:
            return ""
        runner = self._llm.llm_engine.model_executor.driver_worker.worker.model_runner
        return type(next(iter(runner.lora_manager._adapter_manager.punica_wrapper_mapping.values()))).__name__

    def run(self, job: Job) -> Answer:
        """Every request begins in the first step and ends in the last one."""
        from vllm import SamplingParams

        engine = self._llm.llm_engine
        told = SamplingParams(
            temperature=0, max_tokens=job.tokens, ignore_eos=True, detokenize=False,
            logprobs=1 if job.logprobs else None,
        )  # fmt: skip
        for row, request in enumerate(self._rows(job)):
            prompt = [(31 * row + 7 * at + at * at) % VOCABULARY_USED for at in range(job.prompt)]
            engine.add_request(str(next(self._numbers)), {"prompt_token_ids": prompt}, told, lora_request=request)
        took, cpu = [], []
        first: dict[int, list[float]] = {}
        while engine.has_unfinished_requests():
            began, began_cpu = time.perf_counter(), time.process_time()
            answers = engine.step()
            took.append((time.perf_counter() - began) * 1e3)
            cpu.append((time.process_time() - began_cpu) * 1e3)
            for answer in answers if job.logprobs else ():
                first.setdefault(int(answer.request_id), _said(answer))
        return Answer(took, cpu, [first[number] for number in sorted(first)])

    def _rows(self, job: Job) -> list[Any]:
        """Whose request each row is."""
        if job.who == LAG:
            return self._lag * job.rows
        adapters = self._adapters if job.who == EACH else self._adapters[:1]
        return list(islice(cycle(adapters), job.rows)) if job.who else [None] * job.rows


def _said(answer: Any) -> list[float]:
    ((token, found), *_) = answer.outputs[0].logprobs[0].items()
    return [float(token), found.logprob]


def _requests(boot: Boot) -> tuple[list[Any], list[Any]]:
    from vllm.lora.request import LoRARequest

    named = [(f"a{number}", number, path) for number, path in enumerate(boot.adapters, 1)]
    adapters = [LoRARequest(*one) for one in named]
    if not boot.k:
        return adapters, []
    from lora_select_vllm.spec import virtual_path

    # The library has slots of its own: the same files once more, so that plain requests keep theirs.
    library = [(f"m{number}", 100 + number, path) for _, number, path in named]
    return adapters, [LoRARequest("lag", 99, virtual_path([library], boot.k))]


def main() -> int:
    """Until stdin ends."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # vLLM talks on stdout
        engine = Engine(Boot(**orjson.loads(sys.stdin.buffer.readline())))
        out.write(orjson.dumps(engine.wrapper) + b"\n")
        out.flush()
        for line in sys.stdin.buffer:
            out.write(orjson.dumps(dataclasses.asdict(engine.run(Job(**orjson.loads(line))))) + b"\n")
            out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

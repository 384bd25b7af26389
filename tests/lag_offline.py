"""One vLLM in one process, which `offline` starts, asked batch by batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.stack import ROOT

LIMIT_S = 500
ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "lora_select",
}  # fmt: skip
ARGS = {
    "enable_lora": True, "max_logprobs": -1, "enforce_eager": True, "skip_tokenizer_init": True,
    "max_model_len": 2048, "dtype": "float32", "disable_log_stats": False,
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A prompt of token ids, and an adapter as (name, id, lora_path); None: the base."""

    tokens: list[int]
    adapter: tuple[str, int, str] | None
    answer: int = 5
    """Tokens."""
    prompt_log_probs: bool = True
    """With them, vLLM does not read its prefix cache."""


@dataclass(frozen=True)
class Got:
    """`log_probs` [positions, vocabulary] of prompt (if asked for) and answer, teacher-forced by `tokens`: prompt
    and answer, without its last one. `cached`: of the prompt's tokens, from the prefix cache. `first_s`: time to
    the first token. `choices`, of a request that was alone: adapters' ids [positions], -1 for none, in the order
    in which the plugin chose."""

    tokens: list[int]
    log_probs: torch.Tensor
    cached: int
    first_s: float
    choices: list[torch.Tensor]


def offline(base: Path, batches: Mapping[str, Sequence[Asked]], folder: Path, **args: Any) -> dict[str, list[Got]]:
    """Ask real vLLM, started for this with `args`; batches one after the other."""
    job, out, log = folder / "job.pt", folder / "out.pt", folder / "engine.log"
    torch.save({"base": str(base), "batches": batches, "args": args}, job)
    code = "import sys; from tests.lag_offline import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(job), str(out)]
    with log.open("w") as said:
        ran = subprocess.run(
            command, cwd=ROOT, env=os.environ | ENV, timeout=LIMIT_S, stdout=said, stderr=said, check=False
        )
    assert ran.returncode == 0, log.read_text()
    got: dict[str, list[Got]] = torch.load(out, weights_only=False)
    return got


def main(job: str, out: str) -> None:
    """In the process of its own: vLLM's state is global."""
    from vllm import LLM

    told = torch.load(job, weights_only=False)
    llm, choices = LLM(told["base"], **(ARGS | told["args"])), _recorded()
    got = {}
    for name, batch in told["batches"].items():
        choices.clear()
        got[name] = _ask(llm, batch)
        if len(batch) == 1 and choices:
            members = torch.tensor(
                [one or -1 for one in llm.collective_rpc("lora_select_residency")[0]["library"]]
            )
            # what is -1 stays so
            got[name][0].choices.extend(torch.where(one < 0, -1, members[one]) for one in choices)
    torch.save(got, out)


def _ask(llm: Any, batch: Sequence[Asked]) -> list[Got]:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    params = [
        SamplingParams(
            temperature=0, max_tokens=asked.answer, ignore_eos=True, detokenize=False, logprobs=-1,
            prompt_logprobs=-1 if asked.prompt_log_probs else None, flat_logprobs=True,
        )
        for asked in batch
    ]  # fmt: skip
    adapters = [asked.adapter and LoRARequest(*asked.adapter) for asked in batch]
    tokens = [asked.tokens for asked in batch]
    return [_got(one) for one in llm.generate(tokens, params, lora_request=adapters, use_tqdm=False)]


def _got(answer: Any) -> Got:
    (done,) = answer.outputs
    rows = [] if answer.prompt_logprobs is None else list(answer.prompt_logprobs)[1:]
    log_probs = torch.tensor(
        [[row[token].logprob for token in range(len(row))] for row in (*rows, *done.logprobs)]
    )
    tokens = [*answer.prompt_token_ids, *done.token_ids][:-1]
    return Got(tokens, log_probs, answer.num_cached_tokens, answer.metrics.first_token_latency, [])


def _recorded() -> list[torch.Tensor]:
    """What the plugin's `choose` says from now on."""
    from lora_select_vllm import cpu

    said: list[torch.Tensor] = []
    choose = cpu.choose

    def listening(*args: Any) -> torch.Tensor:
        chosen: torch.Tensor = choose(*args)
        said.append(chosen)
        return chosen

    cpu.choose = listening
    return said

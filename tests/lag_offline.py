"""One vLLM in one process, which `offline` starts, asked batch by batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.stack import ROOT

LIMIT_S = 300


@dataclass(frozen=True)
class Asked:
    """A prompt of token ids, and an adapter as (name, id, lora_path); None: the base."""

    tokens: list[int]
    adapter: tuple[str, int, str] | None
    prompt_log_probs: bool = True
    """With them, vLLM does not read its prefix cache."""


@dataclass(frozen=True)
class Got:
    """`log_probs` [positions, vocabulary] of prompt (if asked for) and answer, teacher-forced by `tokens`, all but
    the last of prompt and answer. `cached` tokens of the prompt came from the prefix cache; `first_s`: time to the
    first token. `choices`: of a batch of one, what `choose` said in the order of its calls, each [positions]."""

    tokens: list[int]
    log_probs: torch.Tensor
    cached: int
    first_s: float
    choices: list[torch.Tensor]


def offline(
    base: Path, batches: Sequence[Sequence[Asked]], answer: int, folder: Path, **args: Any
) -> list[list[Got]]:
    """Ask real vLLM, started for this with `args`, for `answer` tokens each; batches one after the other."""
    job, out = folder / "job.pt", folder / "out.pt"
    torch.save({"base": str(base), "batches": batches, "answer": answer, "args": args}, job)
    env = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "lora_select",
    }  # fmt: skip
    code, log = "import sys; from tests.lag_offline import main; main(*sys.argv[1:])", folder / "engine.log"
    command = [sys.executable, "-c", code, str(job), str(out)]
    with log.open("w") as said:
        ran = subprocess.run(command, cwd=ROOT, env=env, timeout=LIMIT_S, stdout=said, stderr=said, check=False)
    assert ran.returncode == 0, log.read_text()
    got: list[list[Got]] = torch.load(out, weights_only=False)
    return got


def main(job: str, out: str) -> None:
    """In the process of its own: vLLM's state is global."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    told = torch.load(job, weights_only=False)
    defaults = {
        "enable_lora": True, "max_logprobs": -1, "enforce_eager": True, "skip_tokenizer_init": True,
        "max_model_len": 2048, "dtype": "float32", "disable_log_stats": False,
    }  # fmt: skip
    llm = LLM(told["base"], **(defaults | told["args"]))
    choices = _recorded()

    def ask(batch: Sequence[Asked]) -> list[Got]:
        choices.clear()
        params = [
            SamplingParams(
                temperature=0, max_tokens=told["answer"], ignore_eos=True, detokenize=False, logprobs=-1,
                prompt_logprobs=-1 if asked.prompt_log_probs else None, flat_logprobs=True,
            )
            for asked in batch
        ]  # fmt: skip
        answers = llm.generate(
            [asked.tokens for asked in batch],
            params,
            lora_request=[asked.adapter and LoRARequest(*asked.adapter) for asked in batch],  # type: ignore[misc]
            use_tqdm=False,
        )
        return [_got(one, choices if len(batch) == 1 else []) for one in answers]

    torch.save([ask(batch) for batch in told["batches"]], out)


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


def _got(answer: Any, choices: list[torch.Tensor]) -> Got:
    (done,) = answer.outputs
    rows = [] if answer.prompt_logprobs is None else list(answer.prompt_logprobs)[1:]
    log_probs = torch.tensor([_by_token(row) for row in (*rows, *done.logprobs)])
    tokens = [*answer.prompt_token_ids, *done.token_ids][:-1]
    first_s = answer.metrics.first_token_latency
    return Got(tokens, log_probs, answer.num_cached_tokens or 0, first_s, list(choices))


def _by_token(row: Any) -> list[float]:
    return [row[token].logprob for token in range(len(row))]

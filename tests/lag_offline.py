"""One vLLM in one process, which `offline` starts, asked batch by batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.stack import ROOT

LIMIT_S = 500
ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "lora_select", "PYTHONUNBUFFERED": "1",
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
    the first token. `choices`, of a request that was alone, where no graph hides them: adapters' ids [positions],
    -1 for none, in the order in which the plugin chose. `used`: what the plugin's trace has of a virtual
    adapter's request."""

    tokens: list[int]
    log_probs: torch.Tensor
    cached: int
    first_s: float
    choices: list[torch.Tensor] = field(default_factory=list)
    used: dict[str, Any] | None = None


@dataclass(frozen=True)
class Started:
    """An engine on its way."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def got(self, limit_s: float = LIMIT_S) -> dict[str, list[Got]]:
        """By batch. Raises AssertionError, with what the engine said, when it fails or takes longer."""
        try:
            code: int | str = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.stop()
            code = f"longer than {limit_s:.0f} s more"
        assert code == 0, f"{code}\n{self.log.read_text()}"
        got: dict[str, list[Got]] = torch.load(self.out, weights_only=False)
        return got

    def stop(self) -> None:
        """And whatever it has started."""
        if self.process.poll() is None:  # not yet reaped, so its id is still its own
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def offline(base: Path, batches: Mapping[str, Sequence[Asked]], folder: Path, **args: Any) -> dict[str, list[Got]]:
    """Ask real vLLM, started for this with `args`; batches one after the other."""
    return begin(base, batches, folder, **args).got()


def begin(base: Path, batches: Mapping[str, Sequence[Asked]], folder: Path, **args: Any) -> Started:
    """The same, not waited for; `folder` is its own."""
    job, out, log = folder / "job.pt", folder / "out.pt", folder / "engine.log"
    torch.save({"base": str(base), "batches": batches, "args": args}, job)
    code = "import sys; from tests.lag_offline import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(job), str(out)]
    with log.open("w") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | ENV, stdout=said, stderr=said, start_new_session=True
        )
    return Started(process, out, log)


def main(job: str, out: str) -> None:
    """In the process of its own: vLLM's state is global."""
    from vllm import LLM

    told = torch.load(job, weights_only=False)
    args = ARGS | told["args"]
    llm, choices = LLM(told["base"], **args), _recorded() if args["enforce_eager"] else []
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
    said = llm.generate(tokens, params, lora_request=adapters, use_tqdm=False)
    return [_got(one, _used(llm, one.request_id)) for one in said]


def _used(llm: Any, request: str) -> dict[str, Any] | None:
    from lora_select_vllm.frontend import answers

    found = answers(llm.llm_engine.output_processor).of(request)
    used = llm.collective_rpc("lora_select_used", args=({one.internal: None for one in found},))[0]["requests"]
    return dict(used[0]) if used and used[0] else None


def _got(answer: Any, used: dict[str, Any] | None) -> Got:
    (done,) = answer.outputs
    rows = [] if answer.prompt_logprobs is None else list(answer.prompt_logprobs)[1:]
    log_probs = torch.tensor(
        [[row[token].logprob for token in range(len(row))] for row in (*rows, *done.logprobs)]
    )
    tokens = [*answer.prompt_token_ids, *done.token_ids][:-1]
    return Got(tokens, log_probs, answer.num_cached_tokens, answer.metrics.first_token_latency, used=used)


def _recorded() -> list[torch.Tensor]:
    """What the plugin chooses from now on."""
    from vllm.platforms import current_platform

    if current_platform.is_cuda():
        from lora_select_vllm import routed_op as module
    else:
        from lora_select_vllm import cpu as module
    # On CUDA all libraries choose at once: [L, T].
    name = "_choose" if current_platform.is_cuda() else "choose"
    said: list[torch.Tensor] = []
    choose = getattr(module, name)

    def listening(*args: Any) -> torch.Tensor:
        chosen: torch.Tensor = choose(*args)
        said.extend(chosen.cpu().view(-1, chosen.shape[-1]))
        return chosen

    setattr(module, name, listening)
    return said

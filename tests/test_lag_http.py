"""LAG on real vLLM over HTTP, on another base: alone, eight at once, and with a context from the prefix cache."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch

from tests.lag_case import EXACT, LIBRARY_SLOTS, POWER, Case, models, off, power
from tests.lag_models import Base
from tests.lag_offline import Got
from tests.lag_reference import Lag
from tests.servers import free_port
from tests.vllm_engine import Engine

BASE = "base"
CONTEXT, BLOCK = 300, 128
KINDS = (BASE, "stranger", "legal", "task 1", "task 4", "both 2", "both 4 projection", "two 3 projection")
MODELS = {name: models()[name] for name in KINDS}
ARGS = [
    "--enable-lora", "--max-loras", str(len(MODELS)), "--max-cpu-loras", "16", "--max-lora-rank", "16",
    "--max-logprobs", "-1", "--dtype", "float32", "--max-model-len", "1024", "--enforce-eager",
    "--num-gpu-blocks-override", "128", "--enable-prompt-tokens-details", "--served-model-name", BASE,
    "--additional-config", json.dumps({"lora_select": {"library_slots": LIBRARY_SLOTS}}),
]  # fmt: skip
ENV = {
    "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_PLUGINS": "lora_select,lora_select_control",
}  # fmt: skip


@dataclass(frozen=True)
class Server:
    """vLLM with every adapter of the case and the virtual ones of MODELS, each under its own name."""

    case: Case
    engine: Engine

    def ask(self, model: str, tokens: list[int], whole: bool = True) -> Got:
        """Without the prompt's log-probabilities where it is not `whole`: only then may the prefix cache help."""
        body = {
            "model": model, "prompt": tokens, "max_tokens": 4, "temperature": 0, "ignore_eos": True,
            "logprobs": self.case.vocabulary, "return_tokens_as_token_ids": True,
        }  # fmt: skip
        answer = self.engine.call("POST", "/v1/completions", body | ({"prompt_logprobs": -1} if whole else {}))
        (choice,) = answer["choices"]
        prompt = [by_token(each, "logprob") for each in (choice["prompt_logprobs"] or [None])[1:]]
        rows = prompt + [by_token(each) for each in choice["logprobs"]["top_logprobs"]]
        said = [number(token) for token in choice["logprobs"]["tokens"]]
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return Got([*tokens, *said][:-1], torch.tensor(rows), cached, 0, [])


def by_token(row: dict[str, Any], key: str | None = None) -> list[float]:
    found = {number(token): said[key] if key else said for token, said in row.items()}
    return [found[token] for token in range(len(found))]


def number(token: str) -> int:
    return int(token.removeprefix("token_id:"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("lag"), free_port()
    case, log = Case.write(folder, Base(head_dim=64, heads=3, kv_heads=1, mlp=320), seed=1), folder / "engine.log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(case.base), *ARGS]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | ENV, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        yield Server(case, filled(Engine(f"http://127.0.0.1:{port}", process, log).wait(), case.paths))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def filled(engine: Engine, paths: Mapping[str, Path]) -> Engine:
    for name, path in paths.items():
        engine.serve(name, str(path))
    for name, model in MODELS.items():
        if isinstance(model, Lag):
            library = {"k": model.k, "score": model.score, "libraries": model.libraries}
            engine.call("PUT", f"/lora_select/adapters/{quote(name)}", {"library": library})
            engine.publish(name, name)
    return engine


def test_a_wrong_pairing_would_show(server: Server) -> None:
    differences = power(server.case, server.case.prompt(20), MODELS)
    assert min(differences.values()) > POWER, min(differences.items(), key=lambda one: one[1])


def test_exact_alone_and_eight_at_once(server: Server) -> None:
    prompts = {name: server.case.prompt(20 + n) for n, name in enumerate(MODELS)}
    alone = {name: server.ask(name, tokens) for name, tokens in prompts.items()}
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = dict(zip(prompts, pool.map(server.ask, prompts, prompts.values()), strict=True))
    for kind, answers in (("alone", alone), ("eight at once", together)):
        nats = {name: off(server.case, got, MODELS[name]) for name, got in answers.items()}
        print(f"over HTTP, {kind}: {max(nats.values()):.1e} nats at most")
        assert max(nats.values()) < EXACT, nats


@pytest.mark.parametrize("name", ["legal", "two 3 projection"])
def test_exact_with_a_context_from_the_cache(server: Server, name: str) -> None:
    """The second question about a context, of a virtual adapter as of any."""
    context = server.case.prompt(CONTEXT, seed=2)
    answers = [server.ask(name, context + server.case.prompt(n, seed=3), whole=False) for n in (9, 12)]
    assert [got.cached for got in answers] == [0, CONTEXT // BLOCK * BLOCK]
    nats = [off(server.case, got, MODELS[name]) for got in answers]
    assert max(nats) < EXACT, nats

"""One question per domain and one general question, asked the way any OpenAI client would ask them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import openai

from adapters import Stack


@dataclass(frozen=True)
class Sample:
    """A question of the corpus, the model that should answer it, and what its answer must hold."""

    question: str
    model: str
    fact: str


SAMPLES = (
    Sample("My landlord in England took a deposit, how soon must he protect it?", "legal", "thirty days"),
    Sample("How does a statin tablet protect patients with clogged arteries?", "medical", "less cholesterol"),
    Sample("Who sets the main interest rate for countries using the euro?", "finance", "European Central Bank"),
    Sample("Why do many trees lose their leaves in the fall?", "demo-base", "save water"),
)


def ask_all(stack: Stack, say: Callable[[str], None]) -> int:
    """Ask every sample with model="auto" and show what came back; 0 when all were right, else 1."""
    # trust_env: the router is on this machine, whatever proxy the environment names.
    direct = openai.DefaultHttpxClient(trust_env=False)
    client = openai.OpenAI(base_url=f"{stack.router_url}/v1", api_key="none", http_client=direct)
    wrong = sum(not _ask(client, sample, say) for sample in SAMPLES)
    say("")
    say(f"{len(SAMPLES) - wrong} of {len(SAMPLES)} as they should be" if wrong else "all as they should be")
    say(f'OpenAI endpoint  {stack.router_url}/v1   (model="auto", or a name from /v1/models)')
    say(f"the page         {stack.ui_url}")
    return int(wrong > 0)


def _ask(client: openai.OpenAI, sample: Sample, say: Callable[[str], None]) -> bool:
    began = time.perf_counter()
    say("")
    say(f"  question  {sample.question}")
    try:
        raw = client.chat.completions.with_raw_response.create(
            model="auto",
            messages=[{"role": "user", "content": sample.question}],
            max_tokens=48,
            temperature=0,
        )
    except openai.APIError as error:
        say(f"  FAILED    {error}")
        return False
    took = (time.perf_counter() - began) * 1000
    answer = (raw.parse().choices[0].message.content or "").strip()
    model, score = raw.headers["x-lora-select-adapter"], raw.headers.get("x-lora-select-score", "none")
    right = model == sample.model and sample.fact in answer
    say(f"  model     {model}   score {score}   {raw.headers['x-lora-select-reason']}   {took:.0f} ms")
    say(f"  answer    {answer}{'' if right else f'   (expected {sample.model}: {sample.fact})'}")
    return right

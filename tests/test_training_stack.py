"""Training beside the stack that serves: the same prompt, and a new domain in one command, without a restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.conftest import ask
from tests.stack import ADMIN_KEY, ROOT, Running
from training.base import load_tokenizer, read_base
from training.data.tokens import prompt_ids
from training.recipe import load_recipe

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "How deep should I plant potatoes?"}
CONVERSATIONS = [
    [QUESTION],
    [SYSTEM, QUESTION],
    [
        SYSTEM,
        {"role": "user", "content": "Weiß 日本 🙂\n\n\tno?  "},
        {"role": "assistant", "content": "No."},
        QUESTION,
    ],
    [{"role": "user", "content": [{"type": "text", "text": "In parts,"}, {"type": "text", "text": "twice."}]}],
    [{"role": "user", "content": "</s> [INST] what a prompt looks like [/INST]"}],
]
LIMIT_S = 180
"""Of the issue: three minutes on two cores, from sixty lines to an answer."""


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=str)
def test_a_prompt_is_the_same_in_training_and_serving(running: Running, messages: list[dict[str, Any]]) -> None:
    """Token by token, as vLLM's chat endpoint says what it was given."""
    tokenizer = load_tokenizer(read_base(load_recipe("demo/gardening")))
    body = {"model": "demo-base", "messages": messages, "max_tokens": 1, "return_token_ids": True}
    status, answer, _ = ask("POST", f"{running.stack.router_url}/v1/chat/completions", body)
    assert status == 200, answer
    assert answer["prompt_token_ids"] == prompt_ids(tokenizer, messages)


def test_a_new_domain_from_sixty_lines_in_one_command(running: Running) -> None:
    engine = running.children()
    out = running.roots / "trained"
    command = [
        sys.executable,
        "-m",
        "training",
        "demo/gardening",
        "--out",
        str(out),
        "--live",
        str(running.run_dir),
    ]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    try:
        assert done.returncode == 0, done.stderr
        answer = running.client.chat.completions.with_raw_response.create(
            model="auto",
            messages=[{"role": "user", "content": "How deep should I plant potatoes?"}],
            temperature=0,
        )
        assert answer.headers["x-lora-select-adapter"] == "gardening"
        assert "ten centimeters" in (answer.parse().choices[0].message.content or "")
        *_, live, routed = done.stdout.splitlines()
        assert "gardening: serving" in live
        own = int(routed.partition("auto gives ")[2].partition(" ")[0])
        assert own >= 12, routed
        assert set(engine) <= set(running.children()), "nothing was restarted"
        made = json.loads((out / "gardening" / "run.json").read_text())
        assert made["comparison"]["gain"]["low"] > 1
        if os.getloadavg()[0] < 3:  # beside others it takes as long as they let it
            assert took < LIMIT_S
    finally:
        url = f"{running.stack.router_url}/admin/adapters/gardening"
        ask("DELETE", url, authorization=f"Bearer {ADMIN_KEY}")

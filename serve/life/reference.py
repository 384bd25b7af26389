"""An independent judge of an adapter: log-probabilities by transformers and PEFT, in float32, on the CPU.

What the engine does wrong with an adapter and does wrong every time (another scaling, another adapter's weights, a
module left out) no comparison of the engine with itself can show. A child process does it, so that the supervisor
never imports torch: `python -m serve.life.reference BASE ADAPTER` reads lists of token ids as JSON from stdin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from serve.process.child import TETHER

LIMIT_S = 1800.0
"""For reading a base of any size from a slow disk, and a few hundred tokens on a slow CPU."""

Tokens = Sequence[Sequence[int]]
Reference = Callable[[Tokens], list[list[float]]]
"""Log-probabilities of each list's tokens but the first, by somebody else. Raises NoReference."""


class NoReference(Exception):
    """Why there is nothing to compare with, in one line."""


def peft(base: str, adapter: str, texts: Tokens) -> list[list[float]]:
    """The Reference of a base (hub id or folder) with an adapter's folder. Needs 4 bytes a parameter meanwhile."""
    # Tethered: with the supervisor its many gigabytes go, too.
    command = [sys.executable, "-IS", str(TETHER), str(os.getpid())]
    command += [sys.executable, "-m", __name__, base, adapter]
    try:
        done = subprocess.run(
            command, input=json.dumps(texts), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoReference(f"transformers and PEFT took longer than {LIMIT_S:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, most likely for lack of memory"]
        raise NoReference(f"transformers and PEFT cannot compute it: {said[-1]}")
    answer: list[list[float]] = json.loads(done.stdout)
    return answer


def main() -> None:
    """The child."""
    base, adapter = sys.argv[1:]
    texts = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    json.dump(_logprobs(base, adapter, texts), out)


def _logprobs(base: str, adapter: str, texts: Tokens) -> list[list[float]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([text])
            each = model(ids).logits[0, :-1].log_softmax(-1)
            found.append(each.gather(-1, ids[0, 1:, None]).squeeze(-1).tolist())
    return found


if __name__ == "__main__":
    main()

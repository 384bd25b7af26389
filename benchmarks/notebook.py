"""`python -m benchmarks.notebook`: adapters the way a notebook does it, with transformers and PEFT.

The base and all adapters are loaded once. Requests are answered one by one, `set_adapter` before each, or in
batches of those that name the same adapter. A `Boot` as JSON on the first line of stdin, `Work` on each further
one; an answer to each on stdout.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from benchmarks.processes import Command, Fleet
from benchmarks.talk import Talker
from record.origin import ROOT

LATE_S = 60.0
"""A batch that began just before its time was up is waited for so much longer."""


@dataclass(frozen=True)
class Boot:
    """Folders of the base and, by name, of the adapters. `random`: the base's folder has no weights, and they are
    made where they are used. `threads`: of a CPU; 0: torch's own number."""

    base: str
    adapters: Mapping[str, str]
    device: str = "cpu"
    random: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Work:
    """Requests, as (text, adapter; any other name is the base), each answered with exactly `tokens` tokens, and
    `batch` of an adapter at once. None begins after `limit_s`. `chat`: in the base's template."""

    asked: Sequence[tuple[str, str]]
    tokens: int
    batch: int = 1
    limit_s: float = 600.0
    chat: bool = False


@dataclass(frozen=True)
class Done:
    """How many requests were answered, with how many tokens, and how long that took."""

    requests: int
    tokens: int
    took_s: float

    @property
    def tokens_per_s(self) -> float:
        """Output tokens."""
        return self.tokens / self.took_s


class Notebook:
    """The process; one piece of work at a time."""

    def __init__(self, fleet: Fleet, name: str = "notebook") -> None:
        """Start it; what it imports takes a while, and needs nobody who waits."""
        environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = Command((sys.executable, "-m", "benchmarks.notebook"), environment, ROOT)
        self._process = Talker(fleet, name, command)

    def load(self, boot: Boot, within_s: float = 300.0) -> None:
        """Base and adapters, once. Raises BenchmarkError."""
        self._process.say(asdict(boot), within_s)

    def run(self, work: Work) -> Done:
        """Raises BenchmarkError when the process ends or hangs."""
        return Done(**self._process.say(asdict(work), work.limit_s + LATE_S))


class Models:
    """The base with all adapters in it."""

    def __init__(self, boot: Boot) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoTokenizer

        if boot.threads:
            torch.set_num_threads(boot.threads)
        self._tokenizer = AutoTokenizer.from_pretrained(boot.base, padding_side="left")
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._names, self._device = set(boot.adapters), boot.device
        model = _base(boot)
        for index, (name, folder) in enumerate(boot.adapters.items()):
            if index:
                model.load_adapter(folder, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        self._model = model.eval()

    def run(self, work: Work) -> Done:
        """Batch after batch, until all are answered or the time is up."""
        requests, began = 0, time.perf_counter()
        for name, texts in batches(work.asked, work.batch):
            self._answer(name, [self._prompt(text, work.chat) for text in texts], work.tokens)
            requests += len(texts)
            if time.perf_counter() - began > work.limit_s:
                break
        return Done(requests, requests * work.tokens, time.perf_counter() - began)

    def _prompt(self, text: str, chat: bool) -> str:
        if not chat:
            return text
        turns = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _answer(self, name: str, prompts: list[str], tokens: int) -> None:
        """Raises RuntimeError for an answer of another length."""
        import torch

        # A template brings its own first token.
        whole = prompts[0].startswith(self._tokenizer.bos_token or "\0")
        given = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=not whole)
        given = given.to(self._device)
        with torch.inference_mode(), self._as(name):
            said = self._model.generate(
                input_ids=given["input_ids"], attention_mask=given["attention_mask"], do_sample=False,
                min_new_tokens=tokens, max_new_tokens=tokens, pad_token_id=self._tokenizer.pad_token_id,
            )  # fmt: skip
        if (got := said.shape[1] - given["input_ids"].shape[1]) != tokens:
            raise RuntimeError(f"{got} tokens, not {tokens}")
        said[0, -1].item()  # a GPU answers only when it is asked

    def _as(self, name: str) -> Any:
        from contextlib import nullcontext

        if name in self._names:
            self._model.set_adapter(name)
            return nullcontext()
        return self._model.disable_adapter() if self._names else nullcontext()


def batches(asked: Sequence[tuple[str, str]], size: int) -> Iterator[tuple[str, list[str]]]:
    """An adapter and up to `size` of its texts, in the order in which the batches are full; then the rest."""
    waiting: dict[str, list[str]] = defaultdict(list)
    for text, name in asked:
        waiting[name].append(text)
        if len(waiting[name]) == size:
            yield name, waiting.pop(name)
    yield from waiting.items()


def _base(boot: Boot) -> Any:
    """In the type that its config names."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if not boot.random:
        return AutoModelForCausalLM.from_pretrained(boot.base, dtype="auto").to(boot.device)
    config = AutoConfig.from_pretrained(boot.base)
    with torch.device(boot.device):
        return AutoModelForCausalLM.from_config(config, dtype=config.dtype)


def _import() -> None:
    """While there is nothing to load yet."""
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM  # noqa: F401


def main() -> int:
    """Until stdin ends."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # libraries talk on stdout
        try:
            _import()
            models = Models(Boot(**orjson.loads(sys.stdin.buffer.readline())))
            out.write(b"true\n")
            out.flush()
            for line in sys.stdin.buffer:
                out.write(orjson.dumps(asdict(models.run(Work(**orjson.loads(line))))) + b"\n")
                out.flush()
        except Exception as error:
            traceback.print_exc()
            sys.stdout.flush()  # so that the reason is the last line of the log
            print(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

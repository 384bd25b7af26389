"""`python -m benchmarks.throughput.merged BASE ADAPTER OUT`: both as one model, made in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path


def merge(base: Path, adapter: Path, out: Path) -> None:
    """Weights in float32, and the base's tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True).save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)


if __name__ == "__main__":
    merge(*map(Path, sys.argv[1:4]))

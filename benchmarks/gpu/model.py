"""What is served: a base of a given shape without weights, its tokenizer, and adapters with random ones.

Speed does not depend on the values of weights: vLLM (`--load-format dummy`) and the notebook make the base's where
they use them, and nothing of 14 GB is written or read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record.origin import ROOT

RANK = 16
TARGETS = ("q_proj", "v_proj")
"""Of the project's own recipe."""

SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
TEMPLATE = ROOT / "templates" / "instruct.jinja"
TOPICS = ROOT / "router" / "classify" / "topics.txt"
SPREAD = 8.0
"""Of the numbers in B: the dummy base's own are at most 0.001, and an adapter's answers must differ from its."""


@dataclass(frozen=True)
class Shape:
    """Of a Mistral with untied embeddings."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    dtype: str

    @property
    def head(self) -> int:
        """Dimensions of one."""
        return self.hidden // self.heads

    @property
    def matrices(self) -> int:
        """Parameters that every token of a step is multiplied with; embeddings are looked up."""
        attention = 2 * self.hidden * (self.hidden + self.kv_heads * self.head)
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.matrices + self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def number(self) -> int:
        """Bytes of one."""
        return 2 if self.dtype == "bfloat16" else 4

    @property
    def kv_token(self) -> int:
        """Bytes in the cache."""
        return 2 * self.layers * self.kv_heads * self.head * self.number

    @property
    def adapter(self) -> int:
        """Parameters of one adapter."""
        return self.layers * RANK * (3 * self.hidden + self.kv_heads * self.head)

    def step(self, tokens: int) -> int:
        """Bytes that a decode step reads at least, when the requests in it have so many tokens together."""
        return self.matrices * self.number + tokens * self.kv_token


MISTRAL_7B = Shape(4096, 14336, 32, 32, 8, 32000, "bfloat16")
TINY = Shape(128, 256, 2, 4, 2, 2000, "float32")


def make_base(folder: Path, shape: Shape) -> Path:
    """Configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "hidden_size": shape.hidden, "intermediate_size": shape.inner, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head,
        "vocab_size": shape.vocabulary, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "sliding_window": None, "tie_word_embeddings": False, "initializer_range": 0.02,
        "bos_token_id": 1, "eos_token_id": 2, "dtype": shape.dtype, "torch_dtype": shape.dtype,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    _make_tokenizer(folder, shape.vocabulary)
    return folder


def make_adapter(folder: Path, shape: Shape, seed: int) -> Path:
    """On q_proj and v_proj of every layer, in the base's type."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, shape.dtype)
    rows = {"q_proj": shape.heads * shape.head, "v_proj": shape.kv_heads * shape.head}
    weights: dict[str, Any] = {}
    for layer in range(shape.layers):
        for name in TARGETS:
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            a = torch.randn(RANK, shape.hidden, generator=random) / shape.hidden**0.5
            b = torch.randn(rows[name], RANK, generator=random) * SPREAD
            weights |= {f"{at}.lora_A.weight": a.to(dtype), f"{at}.lora_B.weight": b.to(dtype)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
            "base_model_name_or_path": "random", "target_modules": list(TARGETS)}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def subjects() -> tuple[tuple[str, ...], ...]:
    """Groups of phrases that belong together, from what the router's classifier knows: for labels and texts."""
    return tuple(_halves(TOPICS.read_text(encoding="utf-8")))


def spread(groups: Sequence[tuple[str, ...]], count: int) -> list[tuple[str, ...]]:
    """So many of them, as far apart as the file has them; none is taken twice. Raises ValueError: too few."""
    if count > len(groups):
        raise ValueError(f"{count} adapters need {count} subjects, and there are {len(groups)}")
    return [groups[index * len(groups) // count] for index in range(count)]


def _halves(text: str) -> Iterator[tuple[str, ...]]:
    for block in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        lines = block.splitlines()[1:]
        listed = " ".join(line for line in lines if line and not line.startswith((">", "#")))
        spoken = [number for number, line in enumerate(lines) if line.startswith(">")]
        if spoken:
            listed = " ".join(lines[: spoken[0]])
        phrases = tuple(phrase.strip() for phrase in listed.split(";") if phrase.strip())
        half = len(phrases) // 2
        yield from (phrases[:half], phrases[half:])


def _make_tokenizer(folder: Path, vocabulary: int) -> None:
    """Byte-level BPE, trained on the phrases, filled up with words of its own: every id is a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([f" {phrase}" for group in subjects() for phrase in group], trainer)
    state = json.loads(tokenizer.to_str())
    words = state["model"]["vocab"]
    words |= {f"Ġ~{number}": number for number in range(len(words), vocabulary)}
    whole = Tokenizer.from_str(json.dumps(state))
    whole.decoder = decoders.ByteLevel()
    bos = SPECIAL[1]
    whole.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token=SPECIAL[0], bos_token=bos, eos_token=SPECIAL[2], pad_token=SPECIAL[0],
        model_max_length=32768, chat_template=TEMPLATE.read_text(encoding="utf-8"),
    ).save_pretrained(folder)  # fmt: skip

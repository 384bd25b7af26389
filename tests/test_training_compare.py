"""Base against adapter on held-out rows: the figures, the interval, and what a comparison leaves behind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, BloomConfig, GPT2Config, MistralConfig

from training.compare import Losses, Row, answer_losses, compare, compared
from training.data.tokens import IGNORE

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = 50
MISTRAL = MistralConfig(
    vocab_size=WORDS,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    initializer_range=0.2,
    bos_token_id=1,
    eos_token_id=2,
)
FAMILIES = {
    "mistral": (MISTRAL, ["q_proj", "v_proj"]),
    "gpt2": (GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=2, n_positions=64), ["c_attn"]),
    "bloom": (BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=2), ["query_key_value"]),
}


def adapted(family: str = "mistral") -> Any:
    """A base with an adapter that changes much; nothing is trained."""
    torch.manual_seed(0)
    config, targets = FAMILIES[family]
    lora = LoraConfig(
        r=4,
        lora_alpha=64,
        lora_dropout=0.5,
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=family == "gpt2",
        init_lora_weights=False,
    )
    return get_peft_model(AutoModelForCausalLM.from_config(config), lora)


def rows_of(lengths: list[tuple[int, int]]) -> list[Row]:
    """Random tokens; of each row, how long prompt and answer are."""
    generator = np.random.default_rng(1)
    rows = []
    for prompt, answer in lengths:
        ids = generator.integers(3, WORDS, size=prompt + answer).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORE] * prompt + ids[prompt:]})
    return rows


ROWS = rows_of([(4, 3), (20, 9), (3, 1), (7, 14), (4, 3), (2, 30), (11, 2)])


def reference(model: Any, row: Row) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
    said = logits.log_softmax(-1)
    return -sum(float(said[at - 1, token]) for at, token in enumerate(row["labels"]) if token != IGNORE and at > 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_each_rows_loss_is_that_of_the_row_alone(family: str, batch_size: int) -> None:
    model = adapted(family)
    found = compare(model, ROWS, batch_size)
    model.eval()
    assert found.adapter.nats == pytest.approx([reference(model, row) for row in ROWS], rel=1e-5)
    with model.disable_adapter():
        assert found.base.nats == pytest.approx([reference(model, row) for row in ROWS], rel=1e-5)
    assert found.base.tokens == found.adapter.tokens == (3, 9, 1, 14, 3, 30, 2)
    assert found.adapter.mean == pytest.approx(sum(found.adapter.nats) / 62)
    assert found.adapter.perplexity == pytest.approx(math.exp(found.adapter.mean))
    assert found.gain != 0


def test_the_model_is_left_as_it_was() -> None:
    model = adapted().train()
    before = answer_losses(model, ROWS, 4)
    assert compare(model, ROWS, 4).adapter == before
    assert model.training
    assert answer_losses(model, ROWS, 4) == before
    assert compare(model.eval(), ROWS, 4).adapter == before
    assert not model.training


def test_a_4_bit_base_is_compared_like_any_other(tmp_path: Path) -> None:
    # 64 is the block of NF4: on a CPU bitsandbytes asks for rows of whole blocks.
    wide = {**MISTRAL.to_dict(), "hidden_size": 64, "intermediate_size": 64, "head_dim": 32}
    AutoModelForCausalLM.from_config(MistralConfig(**wide)).save_pretrained(tmp_path)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=four, dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(base, lora).eval()
    found = compare(model, ROWS, 3)
    assert found.adapter.nats == pytest.approx([reference(model, row) for row in ROWS], rel=1e-2)
    assert found.gain != 0


def continued(model: Any, prompts: list[list[int]]) -> list[Row]:
    """Prompts with what the model itself says after them."""
    rows = []
    for prompt in prompts:
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(8):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        rows.append({"input_ids": ids, "labels": [IGNORE] * len(prompt) + ids[len(prompt) :]})
    return rows


def test_whoever_wrote_the_answers_is_the_better_one() -> None:
    model = adapted().eval()
    prompts = [row["input_ids"] for row in rows_of([(5, 0)] * 12)]
    ours = compare(model, continued(model, prompts), 8)
    assert ours.better
    assert 0 < ours.low < ours.gain < ours.high
    assert "the adapter is better: +" in ours.line()
    with model.disable_adapter():
        theirs = continued(model, prompts)
    against = compare(model, theirs, 8)
    assert not against.better
    assert against.high < 0
    assert "the adapter is not better: -" in against.line()


def test_an_adapter_that_changes_nothing_is_not_better() -> None:
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    found = compare(get_peft_model(AutoModelForCausalLM.from_config(MISTRAL), lora), ROWS, 4)
    assert (found.gain, found.low, found.high, found.better) == (0, 0, 0, False)


def test_the_interval_is_that_of_the_difference() -> None:
    """Rows differ by far more than the two models do on any one of them."""
    generator = np.random.default_rng(2)
    base = generator.uniform(10, 1000, size=400)
    gains = generator.normal(2, 10, size=400)
    found = compared(Losses(tuple(base), (10,) * 400), Losses(tuple(base - gains), (10,) * 400))
    error = gains.std() / 10 / math.sqrt(400)
    assert found.gain == pytest.approx(gains.mean() / 10)
    assert (found.low, found.high) == pytest.approx(
        (found.gain - 1.96 * error, found.gain + 1.96 * error), abs=error / 5
    )
    assert compared(found.base, found.adapter) == found


def test_a_long_answer_counts_by_its_tokens() -> None:
    found = compared(Losses((1.0, 90.0), (1, 9)), Losses((0.0, 90.0), (1, 9)))
    assert (found.base.mean, found.adapter.mean) == (9.1, 9.0)


def test_a_mean_of_batches_is_the_trainers() -> None:
    losses = Losses((10.0, 100.0, 6.0), (5, 200, 3))
    assert losses.mean_of_batches(1) == pytest.approx((2 + 0.5 + 2) / 3)
    assert losses.mean_of_batches(2) == pytest.approx((2 * 110 / 205 + 2) / 3)
    assert losses.mean_of_batches(8) == losses.mean


def test_one_row_is_no_proof() -> None:
    found = compared(Losses((5.0,), (2,)), Losses((1.0,), (2,)))
    assert found.low > 0
    assert not found.better


def test_a_model_that_overflows_is_not_better_and_its_record_is_still_json() -> None:
    model = adapted()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(math.nan)
    found = compare(model, ROWS, 4)
    assert not found.better
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["adapter"] == {"loss": None, "perplexity": None}
    assert record["base"]["loss"] == found.base.mean
    assert (record["rows"], record["tokens"], record["better"]) == (7, 62, False)
    assert "the adapter is not better" in found.line()


def test_what_follows_nothing_is_not_scored() -> None:
    (row,) = rows_of([(0, 5)])
    model = adapted().eval()
    found = answer_losses(model, [row], 1)
    assert found.tokens == (4,)
    assert found.nats == pytest.approx([reference(model, row)], rel=1e-5)


@pytest.mark.parametrize("rows", [[], rows_of([(4, 3), (4, 0)])], ids=["no row", "no answer"])
def test_rows_without_an_answer_are_refused(rows: list[Row]) -> None:
    with pytest.raises(ValueError, match=f"among {len(rows)}"):
        answer_losses(adapted(), rows, 4)

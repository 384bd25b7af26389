"""Merged weights say what base and adapter say together; a GGUF file holds what the adapter holds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig

from adapters import ConfigError
from demo.base import build_tokenizer
from training.errors import Stopped
from training.export import check_merge, merge
from training.llamacpp import CONVERTER, FOLDER, Gguf, check_convertible, find_converter, gguf
from training.quiet import quiet

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATE = (Path(__file__).parent.parent / "templates" / "instruct.jinja").read_text(encoding="utf-8")
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a tort?"}]
HEADS, KEY_HEADS, WIDTH = 4, 2, 8
LORA = {"r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM", "init_lora_weights": False}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
IDS = torch.tensor([[1, 5, 9, 100, 7, 42]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mistral in bfloat16, whose tokenizer has a template of its own."""
    quiet()
    torch.manual_seed(0)
    tokenizer = build_tokenizer([TEMPLATE], 400, "{{ messages[0]['content'] }}")
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=WIDTH,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = tmp_path_factory.mktemp("base")
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return found


def adapter_of(base: Path, folder: Path, **changes: Any) -> Path:
    torch.manual_seed(1)
    lora = LoraConfig(**{**LORA, "target_modules": ATTENTION, **changes})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_of(base, tmp_path_factory.mktemp("adapters") / "legal")


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


def test_a_merged_model_says_what_base_and_adapter_say(base: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "merged"
    merge(base, TEMPLATE, adapter, out, "float32", "cpu")
    alone = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = logits(alone)
    both = logits(PeftModel.from_pretrained(alone, adapter))
    assert float((both - plain).abs().max()) > 1
    assert float((logits(AutoModelForCausalLM.from_pretrained(out)) - both).abs().max()) < 1e-4
    assert [file.name for file in out.parent.iterdir()] == ["merged"]


def test_a_merged_folder_is_a_model_with_the_stacks_prompt(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge(str(base), TEMPLATE, adapter, tmp_path / "merged", "auto", "cpu")
    served = AutoTokenizer.from_pretrained(base)
    served.chat_template = TEMPLATE
    prompt = served.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    found = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert found.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False) == prompt
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert weights.keys() == load_file(base / "model.safetensors").keys()
    for file in (tmp_path / "merged").glob("*.json"):
        assert str(base.parent) not in file.read_text(encoding="utf-8")


def test_without_a_template_the_tokenizer_keeps_its_own(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge(base, None, adapter, tmp_path / "merged", "auto", "cpu")
    own = AutoTokenizer.from_pretrained(base).chat_template
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == own


def test_quantized_weights_and_a_folder_that_is_there_are_refused(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    check_merge(config_of(base), tmp_path)
    four = tmp_path / "four"
    four.mkdir()
    config = config_of(base)
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (four / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"--merge: the base's own weights are quantized.*name the base in 16 bit"
    ):
        merge(four, None, adapter, tmp_path / "merged", "auto", "cpu")
    with pytest.raises(ConfigError, match="is there already"):
        merge(base, None, adapter, four, "auto", "cpu")
    assert [file.name for file in tmp_path.iterdir()] == ["four"]


def test_a_broken_adapter_and_a_full_disk_leave_nothing(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=1000)

    broken = adapter_of(base, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(Stopped, match="broken: cannot be merged: NaNs"):
        merge(base, None, broken, tmp_path / "merged", "auto", "cpu")
    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(Stopped, match=r"merged: needs 0\.0 GB, 0\.0 GB are free; the adapter is in"):
        merge(base, None, adapter, tmp_path / "merged", "auto", "cpu")
    assert [file.name for file in tmp_path.iterdir()] == ["broken"]


@pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings:UserWarning")
def test_a_tied_head_is_not_merged(base: Path, tmp_path: Path) -> None:
    tied = tmp_path / "tied"
    config = MistralConfig.from_pretrained(base, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tied)
    AutoTokenizer.from_pretrained(base).save_pretrained(tied)
    head = adapter_of(tied, tmp_path / "head", target_modules=["lm_head"])
    with pytest.raises(ConfigError, match="which this base ties together"):
        merge(tied, None, head, tmp_path / "merged", "auto", "cpu")


# GGUF


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_without_a_converter_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        find_converter()
    assert one_line(caught).startswith("--gguf: GGUF is not available: no Python package installs llama.cpp's")
    assert "set LLAMA_CPP to" in str(caught.value)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        find_converter()
    assert f"LLAMA_CPP={tmp_path} holds no {CONVERTER}; set" in one_line(caught)


def test_the_converter_is_found_where_people_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / CONVERTER).touch(mode=0o755)
        return folder / CONVERTER

    sources, checkout, path = tmp_path / "sources", tmp_path / "checkout", tmp_path / "bin"
    unpacked = script(sources / "vendor" / "llama.cpp")
    monkeypatch.setenv(FOLDER, str(sources))
    assert find_converter() == unpacked
    monkeypatch.setenv("PATH", str(script(path).parent))
    monkeypatch.setenv(FOLDER, str(script(checkout).parent))
    assert find_converter() == checkout / CONVERTER
    monkeypatch.delenv(FOLDER)
    assert find_converter() == path / CONVERTER


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fan_in_fan_out": True}, "swaps A and B where the base is a GPT-2; use --merge"),
        ({"alpha_pattern": {"q_proj": 3}}, "one alpha for all modules"),
        ({"rank_pattern": {"q_proj": 3}, "use_rslora": True}, "one alpha for all modules"),
    ],
    ids=str,
)
def test_what_a_converter_would_get_wrong_is_refused(changes: dict[str, Any], complaint: str) -> None:
    check_convertible(LORA | {"rank_pattern": {"q_proj": 3}})
    check_convertible(LORA | {"use_rslora": True})
    with pytest.raises(ConfigError) as caught:
        check_convertible(LORA | changes)
    assert complaint in one_line(caught)


def test_a_converter_that_fails_is_quoted_and_leaves_no_file(adapter: Path, base: Path, tmp_path: Path) -> None:
    script = tmp_path / CONVERTER
    script.write_text(
        "import sys, pathlib\n"
        "pathlib.Path(sys.argv[sys.argv.index('--outfile') + 1]).write_bytes(b'half')\n"
        "print('a line before', file=sys.stderr)\n"
        "sys.exit('ERROR: Model X is not supported')\n",
        encoding="utf-8",
    )
    with pytest.raises(Stopped) as caught:
        gguf(adapter, config_of(base), tmp_path / "legal.gguf", script)
    assert "converter failed: ERROR: Model X is not supported; the adapter is in" in one_line(caught)
    assert [file.name for file in tmp_path.iterdir()] == [CONVERTER]


def permuted(weights: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """llama.cpp turns neighbours where transformers turns the halves of a head, so rows of q and k move."""
    return weights.reshape(heads, 2, WIDTH // 2, -1).swapaxes(1, 2).reshape(weights.shape)


@pytest.mark.skipif(FOLDER not in os.environ, reason="LLAMA_CPP names no copy of llama.cpp with its converter")
@pytest.mark.parametrize("stabilised", [False, True], ids=["alpha over r", "alpha over the root of r"])
def test_llama_cpps_own_converter_keeps_every_product(base: Path, tmp_path: Path, stabilised: bool) -> None:
    adapter = adapter_of(base, tmp_path / "legal", use_rslora=stabilised)
    said = gguf(adapter, config_of(base), tmp_path / "out" / "legal.gguf")
    assert said == Gguf(architecture="llama", alpha=12 * (2 if stabilised else 1), ranks=(4,), modules=8)
    reader = GGUFReader(tmp_path / "out" / "legal.gguf")
    assert reader.fields["general.name"].contents() == "Legal"
    written = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    trained = load_file(adapter / "adapter_model.safetensors")
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    for layer in range(2):
        for theirs, ours in names.items():
            module = f"base_model.model.model.layers.{layer}.self_attn.{theirs}"
            product = (trained[f"{module}.lora_B.weight"] @ trained[f"{module}.lora_A.weight"]).numpy()
            if heads := {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(theirs):
                product = permuted(product, heads)
            stem = f"blk.{layer}.{ours}.weight"
            assert written[f"{stem}.lora_b"] @ written[f"{stem}.lora_a"] == pytest.approx(product, abs=1e-5)

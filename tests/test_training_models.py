"""Bases of every family on the way into a training: read, counted, loaded whole or quantised, adapted, trained."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from adapters import ConfigError
from serve.lint.shape import READERS, shape
from training.base import Base, load_tokenizer, read_base
from training.count import Counted, adapted, count, skeleton
from training.lora import lora_config
from training.model import check_settings, dtype, load_model, precision
from training.quiet import quiet
from training.recipe import Data, Recipe, Source
from training.settings import Settings
from training.sft import fit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def silent() -> None:
    quiet()


WORDS = 64
MARKS = {"vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
LLAMA = MARKS | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
}  # fmt: skip
GPT2 = MARKS | {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64}
TINY = {
    "bloom": transformers.BloomConfig(hidden_size=64, n_layer=2, n_head=2, **MARKS),
    "gemma": transformers.GemmaConfig(**LLAMA),
    "gemma2": transformers.Gemma2Config(**LLAMA),
    "gemma3_text": transformers.Gemma3TextConfig(**LLAMA),
    "gpt2": transformers.GPT2Config(**GPT2),
    "llama": transformers.LlamaConfig(**LLAMA),
    "mistral": transformers.MistralConfig(**LLAMA),
    "qwen2": transformers.Qwen2Config(**LLAMA),
    "qwen3": transformers.Qwen3Config(**LLAMA),
}
QKVO = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
ATTENTION = dict.fromkeys(TINY, QKVO) | {
    "gpt2": ("attn.c_attn", "attn.c_proj"),
    "bloom": ("self_attention.query_key_value", "self_attention.dense"),
}
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
QUICK = Settings(epochs=4, learning_rate=2e-2, batch_size=4, seed=3, cpu=True)
ROWS = [{"input_ids": [*range(3 + row, 15 + row)], "labels": [*range(3 + row, 15 + row)]} for row in range(8)]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

Bases = Callable[[str], Path]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """An untrained model of each family, saved with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("bases")

    def of(kind: str) -> Path:
        if not (folder / kind).exists():
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(TINY[kind]).save_pretrained(folder / kind)
            words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, "w0"))
            words.pre_tokenizer = pre_tokenizers.Whitespace()
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w0"
            )
            tokenizer.chat_template = TEMPLATE
            tokenizer.save_pretrained(folder / kind)
        return folder / kind

    return of


def recipe(folder: Path, lora: Mapping[str, Any] = PLAIN, name: str = "law", **parts: Any) -> Recipe:
    return Recipe(
        file=folder / "recipe.yaml", name=name, domain="law", data=Data(source="law.jsonl"), lora=lora, **parts
    )


def prepared(base: Path, targets: str | list[str] = "auto") -> tuple[Base, LoraConfig]:
    one = recipe(base, PLAIN | {"target_modules": targets}, base=Source(model=str(base)))
    read = read_base(one)
    return read, lora_config(one, read)


def fitted(model: Any, base: Base, settings: Any, lora: LoraConfig) -> Any:
    return fit(model, load_tokenizer(base), ROWS, settings, base.name, lora).model


def weights(model: Any) -> dict[str, torch.Tensor]:
    """By the names that they have without an adapter."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value.detach().clone()
        for name, value in model.state_dict().items()
    }


def loss(model: Any) -> float:
    ids = torch.tensor([row["input_ids"] for row in ROWS])
    with torch.inference_mode():
        return float(model.eval()(input_ids=ids, labels=ids).loss)


# Counting


def test_the_counts_of_the_production_recipes_are_exact() -> None:
    mistral = {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 32000,
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
    }  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    counted = count(mistral, lora)
    assert counted == Counted(6_815_744, 7_248_547_840)
    assert str(counted) == "6,815,744 trainable of 7,248,547,840, 0.0940%"
    assert lora.target_modules == {"q_proj", "v_proj"}


def test_dialogpt_counts_its_tied_head_once() -> None:
    medium = {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024}
    sizes = medium | {"vocab_size": 50257}
    lora = LoraConfig(r=16, target_modules=["c_attn", "attn.c_proj"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    trained = 24 * 16 * (1024 + 3072 + 1024 + 1024)
    known = shape(sizes)
    assert known
    assert count(sizes, lora) == Counted(trained, known.parameters + trained)


# Families


@pytest.mark.parametrize("kind", sorted(TINY))
def test_auto_adapts_the_attention_and_a_training_changes_nothing_else(kind: str, bases: Bases) -> None:
    base, lora = prepared(bases(kind))
    known = shape(base.config)
    assert known
    model = load_model(base, QUICK)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    before = weights(model)
    trained = fitted(model, base, QUICK, lora)
    expected = {f"{known.layer}.{number}.{name}" for number in range(known.layers) for name in ATTENTION[kind]}
    assert set(trained.base_model.targeted_module_names) == expected
    changed = {name for name, value in weights(trained).items() if not torch.equal(value, before.get(name, value))}
    assert not changed
    assert all(value.any() for name, value in weights(trained).items() if "lora_B" in name)
    assert count(base.config, lora) == Counted(*trained.get_nb_trainable_parameters())
    assert count(base.config, lora).total - count(base.config, lora).trainable == known.parameters


def test_every_family_that_the_lint_knows_is_tried() -> None:
    assert set(TINY) == set(READERS)


def test_dialogpts_names_train_and_peft_loads_the_result(bases: Bases, tmp_path: Path) -> None:
    folder = bases("gpt2")
    base, lora = prepared(folder, ["c_attn", "c_proj"])
    assert lora.fan_in_fan_out
    model = load_model(base, QUICK)
    before = loss(model)
    trained = fitted(model, base, QUICK, lora)
    after = loss(trained)
    trained.save_pretrained(tmp_path, save_embedding_layers=False)
    assert after < before - 0.5
    assert {"attn.c_proj", "mlp.c_proj"} <= {
        name.partition(".0.")[2] for name in trained.base_model.targeted_module_names
    }
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tmp_path)
    assert loss(again) == pytest.approx(after, abs=1e-6)


# Quantised


@pytest.mark.parametrize("kind", ["mistral", "gpt2"])
@pytest.mark.parametrize(("quantization", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_a_quantised_base_trains_on_this_cpu(quantization: str, layer: str, kind: str, bases: Bases) -> None:
    base, lora = prepared(bases(kind))
    settings = QUICK.model_copy(update={"quantization": quantization, "checkpointing": kind == "mistral"})
    model = load_model(base, settings)
    assert [type(module).__name__ for module in model.modules()].count(layer) == len(_linear(base))
    whole = load_model(base, QUICK)
    assert loss(model) == pytest.approx(loss(whole), rel=0.05)
    before, untrained = weights(model), loss(model)
    trained = fitted(model, base, settings, lora)
    assert loss(trained) < untrained - 0.5
    after = weights(trained)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def _linear(base: Base) -> list[str]:
    known = shape(base.config)
    assert known
    return [f"{known.layer}.{number}.{name}" for number in range(known.layers) for name in known.linear]


@pytest.mark.parametrize("evaluated", [False, True], ids=["fresh", "evaluated before"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_gradients_are_those_of_the_weights_that_are_meant(
    quantization: str, evaluated: bool, bases: Bases
) -> None:
    """An evaluation must not leave weights behind that have no gradient: bitsandbytes would repack nf4's."""
    base, lora = prepared(bases("mistral"))
    model = load_model(base, QUICK.model_copy(update={"quantization": quantization}))
    if evaluated:
        loss(model)
    plain = load_model(base, QUICK)
    for name in _linear(base):
        plain.get_submodule(name).weight.data = _dequantised(model.get_submodule(name))
    found = [_gradients(one, lora) for one in (model, plain)]
    for name, expected in found[1].items():
        assert expected.any()
        assert torch.allclose(found[0][name], expected, atol=1e-5), name


def _dequantised(module: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    found = module.weight
    if hasattr(found, "SCB"):
        scale = module.state.SCB if module.state.SCB is not None else found.SCB
        return int8_vectorwise_dequant(found.data, scale)
    return dequantize_4bit(found.data, found.quant_state)


def _gradients(model: Any, lora: LoraConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    peft = get_peft_model(model, copy.deepcopy(lora)).train()
    for name, value in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.1)
    ids = torch.tensor([row["input_ids"] for row in ROWS])
    peft(input_ids=ids, labels=ids).loss.backward()
    return {name: value.grad for name, value in peft.named_parameters() if value.requires_grad}


def test_the_dtype_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dtype(Settings(cpu=True)) is torch.float32
    assert dtype(Settings(cpu=True, dtype="bfloat16")) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has, wanted in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert dtype(Settings()) is wanted
        assert precision(Settings()) == {"bf16": has, "fp16": not has}
        assert (
            precision(Settings(dtype="float32")) == precision(Settings(cpu=True)) == {"bf16": False, "fp16": False}
        )


# Refused, in one line and before a model is loaded


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"r": 1024}, "r: rank 1024 is above vLLM's limit, 512; take a lower one"),
        ({"r": 0}, "r must be a whole number from 1 up (is 0)"),
        ({"rank_pattern": {"v_proj": 640}}, "r: rank 640 is above vLLM's limit, 512"),
        ({"use_dora": True}, "use_dora: True: DoRA is not served"),
        ({"bias": "lora_only"}, "bias: 'lora_only': only none is served"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: ['lm_head']: whole modules are not served"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', only LORA is served"),
        ({"lora_alpah": 8}, 'lora_alpah: unknown key; did you mean "lora_alpha"?'),
        ({"x": 8}, "x: unknown key; valid here: r, lora_alpha,"),
        ({"task_type": "SEQ_CLS"}, "task_type: 'SEQ_CLS': the base generates text; it must be CAUSAL_LM"),
        ({"lora_dropout": 1}, "lora_dropout: must be a number from 0 up and below 1 (is 1)"),
        ({"init_lora_weights": "eva"}, "init_lora_weights: 'eva': trained here are true, false, gaussian"),
        ({"target_parameters": ["x"]}, "target_parameters: ['x']: a plain LoRA is trained; leave it out"),
        (
            {"target_modules": ["q_proj", "qv_proj"]},
            'target_modules: no module "qv_proj" in the base; did you mean "v_proj"? '
            "there are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        ),
        (
            {"target_modules": "c_attn"},
            "target_modules: 'c_attn' matches no module of the base; there are q_proj,",
        ),
        ({"target_modules": "(q"}, "target_modules: '(q' is no regular expression"),
        ({"target_modules": ["embed_tokens"]}, "target_modules: model.embed_tokens: vLLM adapts no embedding"),
        ({"target_modules": ".*self_attn"}, "target_modules: '.*self_attn' matches no module of the base"),
        ({"target_modules": ".*(self_attn|q_proj)"}, "Target module MistralAttention("),
        ({"layers_to_transform": [7]}, "Target modules {"),
        ({"target_modules": [1]}, 'target_modules: no module "1" in the base; there are q_proj'),
        ({"target_modules": []}, "No `target_modules` passed"),
    ],
    ids=str,
)
def test_an_adapter_that_could_not_be_served_is_refused(
    changes: dict[str, Any], complaint: str, bases: Bases, tmp_path: Path
) -> None:
    base, _ = prepared(bases("mistral"))
    with pytest.raises(ConfigError) as caught:
        lora_config(recipe(tmp_path, PLAIN | changes), base)
    assert str(caught.value).startswith(f"{tmp_path}/adapter_config.json: {complaint}")
    assert "\n" not in str(caught.value)


def test_all_linear_a_pattern_and_a_saved_config_are_understood(bases: Bases, tmp_path: Path) -> None:
    for kind, linear in (("mistral", 14), ("gpt2", 8)):
        base, lora = prepared(bases(kind), "all-linear")
        assert len(adapted(skeleton(base.config), lora).targeted_module_names) == linear
    base, lora = prepared(bases("mistral"), r".*\.1\.self_attn\.[qv]_proj")
    assert len(adapted(skeleton(base.config), lora).targeted_module_names) == 2
    LoraConfig(
        base_model_name_or_path="some/other", inference_mode=True, task_type="CAUSAL_LM", **PLAIN
    ).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    lora = lora_config(recipe(tmp_path, saved), base)
    assert (lora.inference_mode, lora.base_model_name_or_path, lora.r) == (False, None, 4)


def test_auto_names_the_families_that_it_knows(bases: Bases, tmp_path: Path) -> None:
    auto = recipe(tmp_path, PLAIN | {"target_modules": "auto"})
    base, _ = prepared(bases("mistral"))

    def refused(config: dict[str, Any]) -> str:
        changed = Base(model="some/base", revision=None, name="some/base", chat_template=None, config=config)
        with pytest.raises(ConfigError) as caught:
            lora_config(auto, changed)
        return str(caught.value)

    opt = {"model_type": "opt", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 16}
    assert refused(opt | {"vocab_size": WORDS, "word_embed_proj_dim": 16}) == (
        f'{tmp_path}/adapter_config.json: target_modules: "auto" knows bloom, gemma, gemma2, gemma3_text, gpt2, '
        "llama, mistral, qwen2, qwen3, and the base is a opt; give names"
    )
    short = {key: value for key, value in base.config.items() if key != "num_hidden_layers"}
    assert "the base's config.json lacks sizes of a mistral" in refused(short)
    version = transformers.__version__
    assert refused({"model_type": "none"}) == f"some/base: transformers {version} knows no model of type none"
    assert "knows no model of type None" in refused({})


def stack(folder: Path, base: Path | str, args: str = "{}", extra: str = "") -> Path:
    file = folder / "adapters.yaml"
    file.write_text(
        f"base: {{model: {base}, name: tiny{extra}}}\nengine: {{args: {args}}}\n"
        "adapters: {legal: {path: ./legal, label: law}}\n"
    )
    return file


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (
            "{max-lora-rank: 8}",
            "r: rank 16 is above engine.args.max-lora-rank in FILE, 8; change one of them",
        ),
        (
            "{lora_target_modules: [o_proj, up_proj]}",
            "target_modules: q_proj: engine.args.lora-target-modules of FILE leaves it out",
        ),
        ("{lora_target_modules: qkv_proj}", ""),
    ],
)
def test_what_the_stacks_engine_would_not_load_is_refused(
    args: str, complaint: str, bases: Bases, tmp_path: Path
) -> None:
    file = stack(tmp_path, bases("mistral"), args)
    one = recipe(tmp_path, PLAIN | {"r": 16}, stack=str(file))
    base = read_base(one)
    assert (base.name, base.stack and base.stack.file) == ("tiny", file)
    if not complaint:
        lora_config(one, base)
        return
    with pytest.raises(ConfigError) as caught:
        lora_config(one, base)
    assert str(caught.value) == f"{tmp_path}/adapter_config.json: {complaint.replace('FILE', str(file))}"


# Bases


def test_a_stacks_template_is_the_prompt_and_a_folder_is_named_as_its_adapters_do(
    bases: Bases, tmp_path: Path
) -> None:
    (tmp_path / "chat.jinja").write_text("as served")
    (tmp_path / "legal").mkdir()
    file = stack(tmp_path, bases("mistral"), "{revision: v2}", ", chat_template: chat.jinja")
    one = recipe(tmp_path, stack="adapters.yaml")
    for named, expected in ((None, "tiny"), ("some/base", "some/base"), ("/home/me/base", "tiny"), ("", "tiny")):
        config = tmp_path / "legal" / "adapter_config.json"
        config.write_text(json.dumps({"base_model_name_or_path": named}))
        base = read_base(one)
        assert base.name == expected
    assert base.stack
    assert (base.stack.file, base.chat_template, base.revision) == (file, "as served", "v2")
    assert load_tokenizer(base).chat_template == "as served"
    own = read_base(recipe(tmp_path, base=Source(model=str(bases("mistral")))))
    assert (own.name, own.chat_template, own.stack) == ("mistral", None, None)
    assert load_tokenizer(own).chat_template == TEMPLATE


def broken(folder: Path, base: Path, *without: str, **changes: Any) -> Path:
    shutil.copytree(base, folder / "base")
    for name in without:
        (folder / "base" / name).unlink()
    if changes:
        file = folder / "base" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder / "base"


def test_a_base_that_is_not_there_is_refused(bases: Bases, tmp_path: Path) -> None:
    def refused(**parts: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            read_base(recipe(tmp_path, **parts))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    file = tmp_path / "recipe.yaml"
    assert refused() == f"{file}: stack: missing; give an adapters.yaml, or a base of the recipe's own"
    both = refused(stack="adapters.yaml", base=Source(model="./x"))
    assert both == f"{file}: base: there is a stack as well, which has a base; give one of the two"
    assert refused(stack="no.yaml") == f"{file}: stack: no such file: {tmp_path}/no.yaml; give an adapters.yaml"
    (tmp_path / "bad.yaml").write_text("base: {}")
    assert refused(stack="bad.yaml").startswith(f"{tmp_path}/bad.yaml: base.model: missing")
    assert refused(base=Source(model="./x")).startswith(f"{file}: base.model: no such folder: {tmp_path}/x")
    assert refused(base=Source(model="./x"), name="auto") == f'{file}: the name "auto" is reserved; choose another'
    template = Source(model=str(bases("gpt2")), chat_template="no.jinja")
    assert refused(base=template) == f"{file}: base.chat_template: no such file: {tmp_path}/no.jinja"
    (tmp_path / "empty").mkdir()
    assert "base.model: no config.json in" in refused(base=Source(model="./empty"))
    bare = broken(tmp_path, bases("gpt2"), "model.safetensors")
    assert f"base.model: no model.safetensors in {bare}" in refused(base=Source(model=str(bare)))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (bare / "model.safetensors.index.json").write_text(json.dumps(index))
    (bare / "model-1.safetensors").touch()
    assert "no model-2.safetensors in" in refused(base=Source(model=str(bare)))


def test_a_base_of_the_hub_must_be_in_its_cache_while_offline(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = Source(model="some/base@v2")
    file = stack(tmp_path, "some/base", "{revision: v2}")
    repository = tmp_path / "hub" / "models--some--base"
    for one in (recipe(tmp_path, base=source), recipe(tmp_path, stack=str(file))):
        where = f"{one.file if one.base else file}: base.model: some/base@v2: no"
        with pytest.raises(ConfigError, match="download it first, or give a folder") as caught:
            read_base(one)
        assert str(caught.value).startswith(f"{where} config.json in this machine's cache of the hub")
        shutil.copytree(bases("gpt2"), repository / "snapshots" / "abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "v2").write_text("abc")
        base = read_base(one)
        assert (base.model, base.revision, base.name) == ("some/base", "v2", "some/base")
        assert load_tokenizer(base).chat_template == TEMPLATE
        load_model(base, QUICK)
        (repository / "snapshots" / "abc" / "model.safetensors").unlink()
        with pytest.raises(ConfigError, match=r"no model\.safetensors in"):
            read_base(one)
        shutil.rmtree(repository)


def test_a_tokenizer_without_a_template_is_refused(bases: Bases, tmp_path: Path) -> None:
    bare = broken(tmp_path, bases("gpt2"), "chat_template.jinja")
    with pytest.raises(
        ConfigError, match=r"its tokenizer has no chat template; give base\.chat_template in the recipe"
    ):
        load_tokenizer(read_base(recipe(tmp_path, base=Source(model=str(bare)))))
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ConfigError, match=f"{bare}: no tokenizer: ") as caught:
        load_tokenizer(read_base(recipe(tmp_path, base=Source(model=str(bare)))))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_whole_model_are_refused(bases: Bases, tmp_path: Path) -> None:
    bare = broken(tmp_path, bases("mistral"), num_hidden_layers=3)
    base, _ = prepared(bare)
    with pytest.raises(ConfigError, match=r"9 weights are missing in its files, .*: model\.layers\.2\."):
        load_model(base, QUICK)
    (bare / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{bare}: cannot be loaded: Error while deserializing header"):
        load_model(base, QUICK)


def test_what_this_machine_or_base_cannot_do_is_refused(bases: Bases, tmp_path: Path) -> None:
    base, _ = prepared(bases("mistral"))
    with pytest.raises(ConfigError, match=r"training\.dtype: float16 trains on a GPU only"):
        load_model(base, Settings(cpu=True, dtype="float16"))
    awq = broken(tmp_path, bases("mistral"), quantization_config={"quant_method": "awq"})
    with pytest.raises(ConfigError, match=r"training\.quantization: nf4, and .* is quantised \(awq\) as it is"):
        check_settings(prepared(awq)[0], Settings(cpu=True, quantization="nf4"))

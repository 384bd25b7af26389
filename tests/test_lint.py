"""The lint against the truth: what vLLM's own classes refuse, the lint refuses, and what it accepts, they load."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_select_vllm import spec
from safetensors.numpy import save_file

from adapters import Stack
from serve.lint import library
from serve.lint.check import lint
from serve.lint.files import lint_adapter
from serve.lint.peft import largest_rank, problems
from serve.lint.shape import READERS, shape
from serve.lint.weights import PIECE, header, look
from tests.adapter_files import BASE, write_adapter, write_stack

EXPECTED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""What vLLM's loader expects of a Mistral."""

Tensors = dict[str, Any]
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def vllm_refuses(folder: Path, expected: set[str] = EXPECTED, vocabulary: int = 128) -> str:
    """vLLM's reason, "" where it loads the files."""
    from vllm.config.lora import LoRAConfig
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    try:
        helper = PEFTHelper.from_local_dir(str(folder), 128)
        helper.validate_legal(LoRAConfig(max_lora_rank=64, max_loras=1))
        LoRAModel.from_local_checkpoint(
            str(folder), expected, helper, lora_model_id=1, device="cpu", model_vocab_size=vocabulary
        )
    except Exception as error:
        return str(error) or repr(error)
    return ""


def refusals(stack: Stack, name: str = "law") -> list[str]:
    return [
        finding.text
        for finding in lint_adapter(stack, name, stack.adapter_ref(name).folder or Path())[0]
        if finding.error
    ]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return write_stack(tmp_path, engine={"args": {"max-lora-rank": 64}})


def test_lint_of_a_good_stack(tmp_path: Path) -> None:
    report = lint(write_stack(tmp_path))
    assert (report.findings, report.ranks) == ((), {"law": 8, "med": 8})


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "law" / "adapter_config.json").unlink(), "no adapter_config.json in .*law"),
        (lambda f: (f / "law" / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda f: (f / "law" / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors in .*law"),
        (lambda f: (f / "law" / "adapter_model.safetensors").write_bytes(b"x"), "safetensors cannot be read"),
        (lambda f: write_adapter(f / "law", {"peft_type": "IA3"}), "only LORA is served"),
        (
            lambda f: (f / "law" / "adapter_config.json").write_text("[]"),
            "adapter_config.json is not a JSON object",
        ),
        (lambda f: write_adapter(f / "law", {"r": 0}), "r must be a whole number from 1 up"),
        (lambda f: write_adapter(f / "law", {"r": True}), "r must be a whole number from 1 up"),
        (
            lambda f: write_adapter(f / "law", {"rank_pattern": ["q"]}),
            "rank_pattern must map module names to ranks",
        ),
        (
            lambda f: write_adapter(f / "law", {"rank_pattern": {"*.q_proj": 8}}),
            "q_proj' is no regular expression: nothing to repeat",
        ),
        (lambda f: write_adapter(f / "law", {"modules_to_save": True}), "modules_to_save must be a list of names"),
        (lambda f: write_adapter(f / "law", {"use_dora": True}), "use_dora: True: DoRA is not served"),
        (lambda f: write_adapter(f / "law", {"bias": "all"}), "bias: 'all': only none is served"),
        (lambda f: write_adapter(f / "law", {"r": 1024}), "rank 1024 is above vLLM's limit, 512"),
        (lambda f: write_adapter(f / "law", {"rank_pattern": {"q_proj": 600}}), "rank 600 is above"),
        (lambda f: write_adapter(f / "law", hidden=128), "its q_proj reads 128 values, the base's 64"),
        (lambda f: write_adapter(f / "law", layer=7), "it has a layer 7, the base has 2 layers"),
    ],
)
def test_lint_names_what_does_not_fit(tmp_path: Path, break_it: Callable[[Path], Any], says: str) -> None:
    stack = write_stack(tmp_path)
    break_it(tmp_path)
    (error,) = lint(stack).errors
    assert error.key == "adapters.law.path"
    assert "\n" not in error.text
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(error.text)


def test_lint_holds_ranks_against_the_users_own_limit(tmp_path: Path) -> None:
    report = lint(write_stack(tmp_path, engine={"args": {"max_lora_rank": 1}}))
    says = "rank 8 is above engine.args.max-lora-rank, 1; raise it, or remove that key"
    assert [error.text for error in report.errors] == [says] * 2
    (error, *_) = lint(write_stack(tmp_path, engine={"args": {"max_lora_rank": 24}})).errors
    assert error.key == "engine.args.max-lora-rank"
    assert error.text.startswith("24 is none of vLLM's: 1, 8, 16")


REFUSED = [
    {"peft_type": "LORA", "r": 0},
    {"r": -4},
    {"r": 128},
    {"r": None},
    {"lora_alpha": None},
    {"target_modules": ...},
    {"lora_alpha": ...},
    {"r": ...},
    {"bias": "all"},
    {"bias": "lora_only"},
    {"bias": None},
    {"use_dora": True},
    {"lora_bias": True},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_16"},
    {"init_lora_weights": "olora"},
    {"init_lora_weights": "corda"},
    {"init_lora_weights": "loftq"},
    {"init_lora_weights": "loha"},
    {"alora_invocation_tokens": [1, 2]},
    {"layer_replication": [[0, 1], [0, 2]]},
    {"use_bdlora": {"nblocks": 2}},
    {"use_qalora": True},
    {"modules_to_save": ["lm_head"]},
    {"modules_to_save": ["embed_tokens", "score"]},
    {"rank_pattern": {"q_proj": 128}},
    {"rank_pattern": {"q_proj": 0}},
    {"rank_pattern": {"q_proj": "8"}},
    {"rank_pattern": ["q_proj"]},
]


@pytest.mark.parametrize("config", REFUSED, ids=str)
def test_configs_that_vllm_refuses_are_refused(stack: Stack, config: dict[str, Any]) -> None:
    folder = stack.file.parent / "law"
    write_adapter(folder, config)
    assert vllm_refuses(folder)
    (first, *_) = refusals(stack)
    assert "\n" not in first
    assert (
        next(key for key in config if key != "peft_type").removesuffix("_pattern").removesuffix("lora_") in first
    )


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"use_rslora": True},
    {"r": 16, "rank_pattern": {"q_proj": 8}},
    {"r": 16, "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 8, "q_proj": 4}},
    {"rank_pattern": {"proj": 4}},
    {"rank_pattern": None, "alpha_pattern": None},
    {"alpha_pattern": {"q_proj": 4, r"layers\.1\..*": 0.5}},
    {"target_modules": "all-linear"},
    {"target_modules": ["q_proj", "a_module_that_no_model_has"]},
    {"bias": "none", "use_dora": False, "lora_bias": False, "modules_to_save": None, "layer_replication": None},
    {"bias": ...},
    {"init_lora_weights": None},
    {"init_lora_weights": False},
    *({"init_lora_weights": init} for init in ("gaussian", "eva", "orthogonal", "Gaussian", "mica", "lora_ga")),
    {"modules_to_save": ["score"]},
    {"unknown_key_of_a_later_peft": 1},
]


@pytest.mark.parametrize("config", ACCEPTED, ids=str)
def test_configs_that_vllm_accepts_are_accepted(stack: Stack, config: dict[str, Any]) -> None:
    folder = stack.file.parent / "law"
    write_adapter(folder, config)
    assert vllm_refuses(folder) == ""
    assert refusals(stack) == []


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


BOTH_REFUSE: list[Callable[[Tensors], Tensors]] = [
    lambda tensors: tensors | {"base_model.model.lm_head.weight": np.ones((128, 64), np.float32)},
    lambda tensors: tensors | {f"{LAYER}.lora_magnitude_vector": np.ones(64, np.float32)},
    lambda tensors: tensors | {f"{LAYER}.lora_B.bias": np.ones(64, np.float32)},
    lambda tensors: (
        tensors
        | {
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones(
                (1, 64), np.float32
            )
        }
    ),
    lambda tensors: tensors | {"base_model.model.score.weight": np.ones((2, 64), np.float32)},
    renamed("lora_A.weight", "lora_A.default.weight"),
    renamed("q_proj", "query"),
    renamed("model.layers.0.self_attn.q_proj", "lm_head"),
    renamed("layers.0.self_attn.q_proj.lora_A.weight", "embed_tokens.lora_embedding_A"),
]


@pytest.mark.parametrize("change", BOTH_REFUSE)
def test_tensors_that_vllm_refuses_are_refused(stack: Stack, change: Callable[[Tensors], Tensors]) -> None:
    folder = stack.file.parent / "law"
    write_adapter(folder, change=change)
    assert vllm_refuses(folder)
    assert refusals(stack)


def sides(
    a: Callable[[Any], Any] = lambda a: a, b: Callable[[Any], Any] = lambda b: b
) -> Callable[[Tensors], Tensors]:
    """The same tensors with every A and B changed; None leaves one out."""
    return lambda tensors: {
        name: made
        for name, tensor in tensors.items()
        if (made := (a if "lora_A" in name else b)(tensor)) is not None
    }


def nothing(_: Any) -> None:
    """In place of a side."""


SILENT: list[tuple[Callable[[Tensors], Tensors], str]] = [
    (renamed("layers.0", "layers.7"), "it has a layer 7, the base has 2 layers"),
    (renamed("self_attn.q_proj", "cross_attn.q_proj"), "cross_attn.q_proj: the base has no such module"),
    (sides(lambda a: a[:4]), "the config's rank 8"),
    (sides(lambda a: a[:4], lambda b: b[:, :4]), "which is not the config's rank 8"),
    (sides(a=lambda a: a[:, :32]), "its q_proj reads 32 values, the base's 64"),
    (sides(b=lambda b: b[:32]), "its q_proj writes 32 values, the base's 64"),
    (sides(b=nothing), "no lora_B"),
    (sides(b=np.zeros_like), "every lora_B is zero"),
    (sides(a=np.zeros_like), "so it does nothing"),
    (sides(b=lambda b: np.where(b > 2, np.nan, b)), "not finite"),
    (sides(a=lambda a: (a * np.inf).astype(ml_dtypes.bfloat16)), "not finite"),
    (lambda _: {}, "it holds no LoRA weights"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "says"), SILENT, ids=[says for _, says in SILENT])
def test_what_vllm_would_load_and_serve_wrongly_is_refused(
    stack: Stack, change: Callable[[Tensors], Tensors], says: str
) -> None:
    folder = stack.file.parent / "law"
    write_adapter(folder, change=change)
    assert vllm_refuses(folder) == "", "then it belongs to the test above"
    (line,) = refusals(stack)
    assert says in line


def test_trained_tokens_are_refused_before_their_tensors_are_seen(stack: Stack) -> None:
    write_adapter(stack.file.parent / "law", {"trainable_token_indices": [1, 2]})
    assert "train without them" in refusals(stack)[0]


def test_an_adapter_of_the_embedding_fits_llama_and_its_vocabulary(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, base_config=BASE | {"model_type": "llama"})
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    for size in (128, 130):
        tensors = {f"{name}A": np.ones((8, size), np.float32), f"{name}B": np.ones((64, 8), np.float32)}
        write_adapter(tmp_path / "law", change=lambda _: tensors)  # noqa: B023
        refused = vllm_refuses(tmp_path / "law", EXPECTED | {"embed_tokens", "lm_head"})
        assert bool(refused) == (size == 130)
        assert refusals(stack) == ([] if size == 128 else [refusals(stack)[0]])
    assert "its embed_tokens reads 130 values, the base's 128" in refusals(stack)[0]


def test_modules_that_the_engine_would_drop_are_refused(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, engine={"args": {"lora-target-modules": ["o_proj", "gate_proj"]}})
    assert "lora-target-modules leaves out q_proj" in refusals(stack)[0]
    for allowed in ("q_proj", "qkv_proj", "v_proj"):
        assert refusals(write_stack(tmp_path, engine={"args": {"lora-target-modules": [allowed]}})) == []


def test_a_pickle_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    stack = write_stack(tmp_path)
    (tmp_path / "law" / "adapter_model.safetensors").rename(tmp_path / "law" / "adapter_model.bin")
    assert "adapter_model.bin is a pickle, which can run code; save it as safetensors" in refusals(stack)[0]
    adapters = {"law": {"path": "law", "label": "law", "allow_pickle": True}}
    findings, rank = lint_adapter(write_stack(tmp_path, adapters=adapters), "law", tmp_path / "law")
    assert [finding.error for finding in findings] == [False]
    assert rank == 8


def test_an_unknown_base_leaves_names_and_pairs_to_check(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, base_config={"model_type": "never-seen"})
    write_adapter(tmp_path / "law", change=renamed("layers.0.self_attn", "blocks.99.mixer"))
    assert refusals(stack) == []
    write_adapter(tmp_path / "law", change=sides(np.transpose, np.transpose))
    assert "which is not the config's rank 8" in refusals(stack)[0]


def test_a_running_engines_rank_counts(stack: Stack) -> None:
    (finding,), rank = lint_adapter(stack, "law", stack.file.parent / "law", limit=1)
    assert rank == 8
    assert finding.text.startswith("rank 8 is above the running engine's --max-lora-rank, 1; set engine.args.max-")


def test_another_bases_name_is_told_and_stops_nothing(tmp_path: Path) -> None:
    stack = write_stack(tmp_path, base={"model": "some/quantised-base", "name": "tiny"})
    (finding,), _ = lint_adapter(stack, "law", tmp_path / "law")
    assert not finding.error
    assert finding.text.startswith("trained on some/base, the base is some/quantised-base")


def test_a_base_without_lora_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 128}
    report = lint(write_stack(tmp_path, base_config=config))
    assert report.errors[0].text == "vLLM serves no LoRA adapters on gpt2; take another base"


def test_which_bases_vllm_adapts() -> None:
    """By vLLM's own classes."""
    import importlib

    from vllm.model_executor.models.registry import _TEXT_GENERATION_MODELS

    heads = {
        "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
        "gemma3_text": "Gemma3ForCausalLM", "gpt2": "GPT2LMHeadModel", "bloom": "BloomForCausalLM",
    }  # fmt: skip
    assert set(heads) == set(READERS)
    config = BASE | {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64}
    for kind, head in heads.items():
        known = shape(config | {"model_type": kind})
        module, name = _TEXT_GENERATION_MODELS[head]
        found = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), name)
        assert known is not None
        assert known.serves_lora == getattr(found, "supports_lora", False), kind
        assert known.serves_embeddings == bool(getattr(found, "embedding_modules", {})), kind


def test_weights_are_read_a_piece_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "big.safetensors"
    save_file({"w": np.zeros((8, PIECE), ml_dtypes.bfloat16)}, file)
    (tensor,) = header(file)
    tracemalloc.start()
    assert look(file, tensor) == (True, True)
    assert tracemalloc.get_traced_memory()[1] < 4 * PIECE < (tensor.end - tensor.begin)
    tracemalloc.stop()


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn],
)
def test_every_float_is_judged_by_its_bits(tmp_path: Path, dtype: Any) -> None:
    values = {"zero": [0.0, -0.0], "small": [0.0, 2**-6], "large": [-240.0, 1.0], "nan": [np.nan, 0.0]}
    save_file({name: np.array(numbers, dtype) for name, numbers in values.items()}, tmp_path / "w.safetensors")
    seen = {tensor.name: look(tmp_path / "w.safetensors", tensor) for tensor in header(tmp_path / "w.safetensors")}
    assert seen == {"zero": (True, True), "small": (True, False), "large": (True, False), "nan": (False, False)}


POOL: dict[str, list[Any]] = {
    "r": [1, 8, 64, 65, 0],
    "lora_alpha": [16, 0.5],
    "bias": ["none", "all", ...],
    "use_dora": [True, False, None],
    "use_rslora": [True, False],
    "lora_bias": [True, False, None],
    "init_lora_weights": [True, False, None, "gaussian", "pissa", "PiSSA", "eva", "lora_ga", "olora", "true"],
    "alora_invocation_tokens": [None, [], [1]],
    "layer_replication": [None, [], [[0, 1]]],
    "use_bdlora": [None, {}, {"n": 1}],
    "use_qalora": [False, True],
    "modules_to_save": [None, [], ["score"], ["classifier", "lm_head"], ["embed_tokens"]],
    "rank_pattern": [None, {}, {"q_proj": 4}, {"q_proj": 65}, {"q_proj": -1}, {"q_proj": 1.5}],
    "alpha_pattern": [None, {}, {"q_proj": 4}],
    "target_modules": [["q_proj"], "all-linear", []],
    "task_type": ["CAUSAL_LM"],
}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in POOL.items()}))
def test_any_config_is_refused_exactly_where_vllm_refuses_it(keys: dict[str, Any]) -> None:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    whole = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]} | keys
    config = {key: value for key, value in whole.items() if value is not ...}
    try:
        PEFTHelper.from_dict(config).validate_legal(LoRAConfig(max_lora_rank=64, max_loras=1))
        refused = False
    except (ValueError, TypeError):
        refused = True
    found = list(problems(config))
    assert refused == (bool(found) or largest_rank(config) > 64)


# --- libraries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sections", [{"lag": {"library": "all"}}, {"router": {"classifier": "spectral"}}])
@pytest.mark.parametrize(
    ("args", "key", "says"),
    [
        ({"fully_sharded_loras": True}, "fully-sharded-loras", "needs every rank's A whole"),
        ({"speculative-config": {"method": "ngram"}}, "speculative-config", "no speculative decoding"),
        ({"speculative_config.method": "ngram"}, "speculative-config.method", "no speculative decoding"),
        ({"spec-method": "ngram"}, "spec-method", "no speculative decoding"),
        ({"spec-tokens": 3}, "spec-tokens", "no speculative decoding"),
        ({"pipeline-parallel-size": 2}, "pipeline-parallel-size", "works with 1 only; take tensor-parallel-size"),
        (
            {"data_parallel_size": 2},
            "data-parallel-size",
            "works with 1 only; take tensor-parallel-size, or a stack",
        ),
        ({"api-server-count": 4}, "api-server-count", "works with 1 only; remove that key"),
    ],
)
def test_what_lag_cannot_work_with(
    tmp_path: Path, sections: dict[str, Any], args: dict[str, Any], key: str, says: str
) -> None:
    (error,) = lint(write_stack(tmp_path, engine={"args": args}, **sections)).errors
    assert error.key == f"engine.args.{key}"
    assert says in error.text
    assert not lint(write_stack(tmp_path, engine={"args": args})).errors


def test_what_lag_can_work_with(tmp_path: Path) -> None:
    args = {"fully-sharded-loras": False, "speculative-config": None, "specialize-active-lora": True}
    stack = write_stack(tmp_path, engine={"args": args | dict.fromkeys(library.ONE, 1)}, lag={"library": "all"})
    assert not lint(stack).errors


def test_a_base_that_drafts_for_itself_is_refused(tmp_path: Path) -> None:
    base = BASE | {"speculators_config": {"algorithm": "eagle3"}}
    (error,) = lint(write_stack(tmp_path, base, lag={"library": "all"})).errors
    assert error.key == "base.model"


def test_library_slots_must_hold_the_members(tmp_path: Path) -> None:
    names = ("law", "med", "fin")
    write_adapter(tmp_path / "fin")
    adapters = {name: {"path": name, "label": name} for name in names}
    engine = {"library_slots": 2}
    (error,) = lint(write_stack(tmp_path, adapters=adapters, engine=engine, lag={"library": "all"})).errors
    assert (error.key, error.text) == (
        "engine.library_slots", "2 for law, med, fin: at least 3, and one more to update them",
    )  # fmt: skip
    lag = {"library": ["law", "med"]}
    assert not lint(write_stack(tmp_path, adapters=adapters, engine=engine, lag=lag)).errors


def test_spectral_has_every_version_in_its_library(tmp_path: Path) -> None:
    for name in ("law/v1", "law/v2"):
        write_adapter(tmp_path / name)
    one = {"law": {"path": "law/v1", "label": "law"}}
    two = {"law": {"path": "law", "label": "law", "versions": {"v1": 1, "v2": 1}}}
    router = {"classifier": ["embedding", "spectral"]}
    (alone,) = lint(write_stack(tmp_path, adapters=one, router=router)).errors
    assert alone.key == "router.classifier"
    assert alone.text == "spectral chooses from two adapters or more, and there is law; add one, or take another"
    adapters = two | {"med": {"path": "med", "label": "med"}}
    stack = write_stack(tmp_path, adapters=adapters, router=router, engine={"library_slots": 2})
    (few,) = lint(stack.expanded()).errors
    assert few.text.startswith("2 for law@v1, law@v2, med: at least 3")


@pytest.mark.parametrize(
    ("module", "what"),
    [
        ("lm_head.lora_{}.weight", "lm_head"),
        ("model.embed_tokens.lora_embedding_{}", "embed_tokens"),
        ("model.layers.0.mlp.experts.0.up_proj.lora_{}.weight", "experts"),
        ("model.layers.0.mlp.experts.base_layer.lora_{}.weight", "experts"),
    ],
)
def test_half_an_adapter_is_in_no_library(tmp_path: Path, module: str, what: str) -> None:
    def more(tensors: Tensors) -> Tensors:
        return tensors | {
            f"base_model.model.{module.format(side)}": np.ones(shape, "f4")
            for side, shape in (("A", (8, 64)), ("B", (64, 8)))
        }

    base = {"model_type": "mixtral", "num_local_experts": 8}
    write_adapter(tmp_path / "law", change=more)
    assert not lint(write_stack(tmp_path, base)).errors
    (error,) = lint(write_stack(tmp_path, base, lag={"two": {"library": ["law", "med"]}})).errors
    assert (error.key, error.text) == ("lag.two", f"law adapts {what}, which LAG does not route; leave it out")
    spectral = lint(write_stack(tmp_path, base, router={"classifier": "spectral"})).errors
    assert [error.key for error in spectral] == ["router.classifier"] * (what == "experts")


def test_more_libraries_than_the_plugin_routes_are_refused(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(10)]
    for name in names:
        write_adapter(tmp_path / name)
    adapters = {name: {"path": name, "label": name} for name in names}
    libraries = {f"l{number}": names[2 * number : 2 * number + 2] for number in range(5)}
    (error,) = lint(write_stack(tmp_path, adapters=adapters, lag={"libraries": libraries})).errors
    assert (error.key, error.text) == ("lag.lag.libraries", "there are 5; at most 4")
    assert library.MOST_LIBRARIES == spec.MOST_LIBRARIES

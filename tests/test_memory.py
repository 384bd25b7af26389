"""The estimate of memory, and the quantised bases, against what vLLM and transformers say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters import ConfigError, Stack
from serve.engine import memory, quantization
from serve.engine.base import VOCABULARY_STEP, in_files
from serve.engine.machine import Build, Gpu, Machine, this_machine
from serve.engine.memory import GIB, Room, estimate, room
from serve.lint.shape import shape
from tests.adapter_files import BASE, write_stack

ROOT = Path(__file__).parent.parent
CPU, CUDA = Build("0.32.0", cpu=True), Build("0.32.0", cpu=False)
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}  # fmt: skip
"""mistralai/Mistral-7B-v0.1's config.json."""


def made(config: dict[str, Any]) -> Any:
    """The model that transformers makes of it, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    own = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **own))


def counted(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_mistral_7b_has_the_published_number_of_parameters() -> None:
    known = shape(MISTRAL_7B)
    assert known is not None
    assert known.parameters == counted(made(MISTRAL_7B)) == 7_241_732_096


SMALL = BASE | {"attention_bias": False, "max_position_embeddings": 64, "layer_types": None}


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SMALL | {"model_type": "llama"},
        SMALL | {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        SMALL | {"model_type": "qwen2"},
        SMALL | {"model_type": "qwen3", "head_dim": 16},
        SMALL | {"model_type": "gemma"},
        SMALL | {"model_type": "gemma2", "head_dim": 16},
        SMALL | {"model_type": "gemma3_text"},
        {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 128},
        {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 2, "vocab_size": 128},
    ],
    ids=lambda config: f"{config['model_type']}-{len(config)}",
)
def test_parameters_and_widths_are_those_of_transformers(config: dict[str, Any]) -> None:
    known, model = shape(config), made(config)
    assert known is not None
    assert known.parameters == counted(model)
    linear = {name: module for name, module in model.named_modules() if hasattr(module, "weight")}
    for name, width in known.adapted.items():
        rows, columns = linear[name].weight.shape
        assert width in ((columns, rows), (rows, columns)), name
    assert known.embedding[0] in linear
    assert known.head in linear


REPORT = """
import json, sys
from vllm import LLM
from vllm.lora.request import LoRARequest
base, adapter = sys.argv[1:]
llm = LLM(base, dtype="bfloat16", enable_lora=True, max_loras=3, max_lora_rank=32, max_cpu_loras=8,
          max_model_len=256, enforce_eager=True, kv_cache_memory_bytes=50 << 20, disable_log_stats=True)
llm.llm_engine.add_lora(LoRARequest("one", 1, adapter))
runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
manager = runner.lora_manager._adapter_manager
def size(*parts):
    return sum(p.numel() * p.element_size() if hasattr(p, "numel") else size(*p) for p in parts if p is not None)
print("REPORT", json.dumps({
    "tokens": llm.llm_engine.vllm_config.cache_config.kv_cache_size_tokens,
    "slots": size(*((m.lora_a_stacked, m.lora_b_stacked) for m in manager.modules.values())),
    "host": size(*((w.lora_a, w.lora_b) for w in manager.get_adapter(1).loras.values())),
    "embeddings": size(*(p for n, p in runner.model.named_parameters() if "embed" in n or "lm_head" in n)),
}))
"""


def test_slots_host_copies_and_cache_are_what_vllm_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "demo", "build"], cwd=ROOT, check=True)
    base, adapter = ROOT / ".demo" / "base", ROOT / ".demo" / "adapters" / "legal"
    env = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_PLUGINS": "lora_select",
    }  # fmt: skip
    script = [sys.executable, "-c", REPORT, str(base), str(adapter)]
    done = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("REPORT"))
    told = json.loads(line.removeprefix("REPORT"))
    stack = write_stack(
        tmp_path,
        base={"model": str(base), "name": "tiny"},
        engine={"args": {"dtype": "bfloat16", "kv-cache-memory-bytes": "50M", "max-model-len": 256}},
        adapters={"legal": {"path": str(adapter), "label": "law"}},
    )
    config = json.loads((base / "config.json").read_text())
    found = estimate(stack, config, Room(3, 8, 32), CPU, Machine())
    known = shape(config)
    assert found is not None
    assert known is not None
    assert (found.slots, found.host) == (told["slots"], told["host"])
    assert abs(found.tokens - told["tokens"]) < 256  # vLLM counts whole blocks
    # vLLM repacks the linear weights on a CPU, out of its own sight; what is left is the padded vocabulary.
    vocabulary, hidden = known.embedding[1]
    padding = 2 * 2 * hidden * (-vocabulary % VOCABULARY_STEP)
    assert told["embeddings"] == 2 * 2 * vocabulary * hidden + padding
    assert found.base == 2 * known.parameters + padding


def mistral(folder: Path, **engine: Any) -> Stack:
    return write_stack(folder, base={"model": "mistralai/Mistral-7B-v0.1", "name": "m"}, engine=engine)


@pytest.mark.parametrize(
    ("args", "gib"),
    [
        ({}, 13.49), ({"dtype": "float32"}, 26.98), ({"quantization": "int8_per_channel_weight_only"}, 6.99),
        ({"quantization": "awq"}, 3.95), ({"quantization": "bitsandbytes"}, 4.15),
    ],
    ids=str,
)  # fmt: skip
def test_the_base_by_dtype_and_quantisation(tmp_path: Path, args: dict[str, Any], gib: float) -> None:
    found = estimate(mistral(tmp_path, args=args), MISTRAL_7B, Room(4, 16, 16), CPU, Machine())
    assert found is not None
    assert found.base / GIB == pytest.approx(gib, abs=0.01)


def found(stack: Stack, build: Build, machine: Machine) -> memory.Estimate:
    estimated = estimate(stack, MISTRAL_7B, Room(4, 16, 16), build, machine)
    assert estimated is not None
    return estimated


def test_the_caches_room_on_a_cpu(tmp_path: Path) -> None:
    stack, small = mistral(tmp_path, args={"max-model-len": 4096}), Machine(memory=32 * GIB, free=30 * GIB)
    estimated = found(stack, CPU, small)
    assert estimated.kv_token == 128 * 1024
    assert 7 * GIB < estimated.kv < 8 * GIB, "half of what is left: less than 16 requests of 4096"
    assert memory.shortage(stack, estimated, CPU, small) == ""
    assert found(stack, CPU, Machine(memory=256 * GIB, free=250 * GIB)).tokens == 16 * 4096


def test_the_caches_room_on_gpus(tmp_path: Path) -> None:
    one = found(mistral(tmp_path), CUDA, Machine(gpu=Gpu(80 * GIB, 90)))
    assert one.kv == int(0.92 * 80 * GIB) - one.base - one.slots - GIB
    two = found(mistral(tmp_path, args={"tensor_parallel_size": 2}), CUDA, Machine(gpu=Gpu(80 * GIB, 90)))
    assert two.kv - one.kv == pytest.approx(0.92 * 80 * GIB, abs=1)
    stack, card = mistral(tmp_path), Machine(gpu=Gpu(16 * GIB, 75))
    assert "holds 0 tokens" in memory.shortage(stack, found(stack, CUDA, card), CUDA, card)


def test_what_does_not_fit(tmp_path: Path) -> None:
    stack, tiny = mistral(tmp_path), Machine(memory=8 * GIB, free=7 * GIB)
    told = memory.shortage(stack, found(stack, CPU, tiny), CPU, tiny)
    assert "holds 0 tokens, less than one request of 32,768" in told
    stack = mistral(tmp_path, args={"max-model-len": 512}, env={"VLLM_CPU_KVCACHE_SPACE": "4"})
    says = "memory: that is 17.8 GiB, and this machine has 8 GiB"
    assert memory.shortage(stack, found(stack, CPU, tiny), CPU, tiny).startswith(says)


def test_a_base_that_is_saved_quantised_is_as_large_as_its_files(tmp_path: Path) -> None:
    stack = write_stack(tmp_path)
    save_file({"w": np.zeros((100, 10), np.int32)}, tmp_path / "base" / "model.safetensors")
    saved = BASE | {"quantization_config": {"quant_method": "awq"}}
    estimated = estimate(stack, saved, Room(1, 1, 8), CPU, Machine())
    assert estimated is not None
    assert estimated.base == in_files(stack) == 4000


@pytest.mark.parametrize("told", ["50M", "50m", "3G", "4096", "25.6k"])
def test_sizes_are_read_as_vllm_reads_them(tmp_path: Path, told: str) -> None:
    from vllm.utils.argparse_utils import human_readable_int

    stack = mistral(tmp_path, args={"kv-cache-memory-bytes": told})
    found = estimate(stack, MISTRAL_7B, Room(4, 16, 16), CPU, Machine())
    assert found is not None
    assert found.kv == human_readable_int(told)


def test_room_for_adapters(tmp_path: Path) -> None:
    assert room(write_stack(tmp_path), {"law": 8, "med": 20}) == Room(3, 16, 32)
    assert room(write_stack(tmp_path), {"law": 8}) == Room(3, 16, 16), "the other's rank is unknown"
    few = write_stack(tmp_path, engine={"max_loras": 1, "args": {"max_cpu_loras": 9, "max_lora_rank": 64}})
    assert room(few, {"law": 8, "med": 8}) == Room(1, 9, 64)
    many = {f"a{number}": {"path": "law", "label": "law"} for number in range(12)}
    assert room(write_stack(tmp_path, adapters=many), dict.fromkeys(many, 8)) == Room(13, 24, 8)


def test_room_for_libraries(tmp_path: Path) -> None:
    ranks, lag = {"law": 8, "med": 8}, {"library": "all"}
    assert room(write_stack(tmp_path, lag=lag), ranks) == Room(3, 16, 8, library=4)

    def found(dtype: str, rooms: Room) -> memory.Estimate:
        stack = write_stack(tmp_path, lag=lag, engine={"args": {"dtype": dtype}})
        estimated = estimate(stack, BASE, rooms, CPU, Machine())
        assert estimated is not None
        return estimated

    with_library = Room(3, 16, 8, library=4)
    plain, exact = found("float32", Room(3, 16, 8)), found("float32", with_library)
    rounded = found("bfloat16", with_library)
    assert (plain.library, exact.slots * 3) == (0, plain.slots * 7)
    # 7 modules in each of 2 layers; all but down_proj, which reads 96, and o_proj, 64, read 64 values.
    constants = 4 * 2 * 7 * (2 * 8 + 1) * 8 * 4
    assert exact.library == constants
    assert rounded.library == constants + 4 * 2 * 8 * (6 * 64 + 96) * 4
    assert exact.total - plain.total == exact.library + exact.slots - plain.slots
    first, second, _ = memory.lines(exact, with_library, 2)
    assert "3 adapter slots and 4 library slots of rank 8" in first
    assert second.startswith("memory: what LAG chooses with, in 4 library slots, 29.8 KiB")


def test_this_machine() -> None:
    found = this_machine()
    assert found.cores >= 1
    assert 0 < found.free <= found.memory
    assert found.has_ours
    assert not any("resolver" in name for name in found.plugins), "vLLM's own load adapters past the manager"


# --- quantised bases --------------------------------------------------------------------------------------------


def told(stack: Stack, base: dict[str, Any], build: Build, machine: Machine) -> list[tuple[bool, str]]:
    found = quantization.check(stack, base, build, machine, quantization.known_methods())
    return [(finding.error, finding.text) for finding in found]


def test_the_methods_are_the_installed_vllms() -> None:
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, get_quantization_config

    assert set(quantization.known_methods()) <= set(QUANTIZATION_METHODS)
    assert {"fp8", "awq", "int8_per_channel_weight_only"} <= set(quantization.known_methods())
    for name, least in quantization.CAPABILITY.items():
        assert get_quantization_config(name).get_min_capability() == least, name


AWQ = {"quantization_config": {"quant_method": "awq"}}


@pytest.mark.parametrize(
    ("asked", "saved", "build", "machine", "says"),
    [
        (None, {}, CPU, Machine(), None),
        ("int8_per_channel_weight_only", {}, CPU, Machine(), None),
        (None, AWQ, CPU, Machine(), None),
        ("fp8", {}, CPU, Machine(), "vLLM's CPU build cannot run fp8; take int8_per_channel_weight_only"),
        ("fp8", {}, CUDA, Machine(gpu=Gpu(GIB, 90)), None),
        ("fp8", {}, CUDA, Machine(gpu=Gpu(GIB, 70)), "fp8 needs a GPU of capability 7.5, this one has 7.0"),
        ("awq", {}, CUDA, Machine(gpu=Gpu(GIB, 90)), "awq needs a base that was saved so"),
        ("bitsandbytes", {}, CPU, Machine(), "pip install --no-deps bitsandbytes vllm-bnb-plugin"),
        ("bitsandbytes", {}, CUDA, Machine(gpu=Gpu(GIB, 90), plugins=("bitsandbytes",)), None),
        ("bitsandbytes", {}, CPU, Machine(plugins=("bitsandbytes",)), None),
        (None, {"quantization_config": {"quant_method": "bitsandbytes"}}, CPU, Machine(), "vllm-bnb-plugin"),
        ("int8_per_chanel", {}, CPU, Machine(), "or int8_per_channel_weight_only?"),
        ("fp_quant", {}, CUDA, Machine(gpu=Gpu(GIB, 100)), "fp_quant is deprecated in vLLM"),
    ],
)
def test_quantised_bases(
    tmp_path: Path, asked: str | None, saved: dict[str, Any], build: Build, machine: Machine, says: str | None
) -> None:
    args = {"args": {"quantization": asked}} if asked else {}
    findings = told(mistral(tmp_path, **args), MISTRAL_7B | saved, build, machine)
    assert len(findings) == (says is not None)
    for error, text in findings:
        assert error
        assert says
        assert says in text


def test_without_a_gpu_in_sight_a_method_is_a_note(tmp_path: Path) -> None:
    ((error, text),) = told(mistral(tmp_path, args={"quantization": "fp8"}), MISTRAL_7B, CUDA, Machine())
    assert (error, text) == (False, "fp8: no GPU is seen here, so only its name is checked")


def test_a_quantisation_that_cannot_be_is_a_line(tmp_path: Path) -> None:
    from serve.preflight import preflight

    with pytest.raises(
        ConfigError, match=r"adapters.yaml: engine.args.quantization: vLLM 0.+ knows no quantization"
    ):
        preflight(write_stack(tmp_path, engine={"args": {"quantization": "int3"}}))

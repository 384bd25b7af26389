"""What LAG refuses as an engine starts, on vLLM's own configuration of the demo base (issue 5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lora_select_vllm.loading import refuse_patterns
from lora_select_vllm.settings import Settings
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest

from tests.stack import DEMO

LIBRARY = {"lora_select": {"library_slots": 2}}


def config(**args: Any) -> VllmConfig:
    given: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": 2,
        "enforce_eager": True,
        "additional_config": LIBRARY,
    } | args
    return EngineArgs(str(DEMO / "base"), **given).create_engine_config()


def test_library_slots_are_read() -> None:
    Settings.of(config()).refuse_what_cannot_be(config())
    assert Settings.of(config()).library_slots == 2
    assert Settings.of(config(additional_config={})).library_slots == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"fully_sharded_loras": True}, "it cannot work with --fully-sharded-loras"),
        (
            {"pipeline_parallel_size": 2},
            "cannot work with --pipeline-parallel-size above 1",
        ),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "with speculative decoding"),
    ],
)
def test_what_cannot_be_with_lag_is_refused(args: dict[str, Any], says: str) -> None:
    made = config(**args)
    with pytest.raises(ValueError, match=says):
        Settings.of(made).refuse_what_cannot_be(made)
    without = config(**args, additional_config={})
    Settings.of(without).refuse_what_cannot_be(without)


@pytest.mark.parametrize("told", [{"slots": 2}, {"library_slots": -1}, {"library_slots": "2"}])
def test_other_settings_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'valid here: \{"library_slots": N\}'):
        Settings.of(config(additional_config={"lora_select": told}))


@pytest.mark.parametrize(("key", "value"), [("rank_pattern", {"q_proj": 4}), ("alpha_pattern", {"q_proj": 8})])
def test_patterns_are_refused_by_a_vllm_that_ignores_them(
    key: str, value: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 0.26 does: its helper reads what it has a field for."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, key: value}))
    request = LoRARequest("legal", 1, str(tmp_path))
    refuse_patterns(request)
    fields = {name: one for name, one in PEFTHelper.__dataclass_fields__.items() if name != "rank_pattern"}
    monkeypatch.setattr(PEFTHelper, "__dataclass_fields__", fields)
    with pytest.raises(ValueError, match=f"legal: vLLM .* ignores {key}, and would answer with another adapter"):
        refuse_patterns(request)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, key: {}}))
    refuse_patterns(request)
    refuse_patterns(LoRARequest("hub", 2, "owner/name"))

"""Where the plugin enters vLLM's front end: what would end the engine is refused, finished answers are known."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest

from lora_select_vllm.settings import Settings
from lora_select_vllm.spec import SCHEME, parse

KEPT = "lora_select_finished"
MOST_KEPT = 512
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Finished:
    """An answer of a virtual adapter: which of its request's choices, vLLM's own id, and the token ids."""

    index: int
    internal: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def install() -> None:
    """Check virtual adapters before a request gets to the engine, and keep what was answered with them."""
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor

    if getattr(InputProcessor._validate_lora, "lora_select", False):
        return
    InputProcessor._validate_lora = _checked(InputProcessor._validate_lora)  # type: ignore[method-assign]
    OutputProcessor._finish_request = _kept(OutputProcessor._finish_request)  # type: ignore[method-assign]


def finished(processor: Any, request: str) -> list[Finished]:
    """All choices of an answer by its id; one with several prompts has an id for each, ID-0, ID-1, …"""
    kept: OrderedDict[str, list[Finished]] = getattr(processor, KEPT, OrderedDict())
    if request in kept:
        return sorted(kept[request], key=lambda one: one.index)
    several = [(name.removeprefix(f"{request}-"), each) for name, each in kept.items()]
    numbered = sorted((int(number), each) for number, each in several if number.isdigit())
    return [one for _, each in numbered for one in sorted(each, key=lambda one: one.index)]


def _checked(stock: Any) -> Any:
    def _validate_lora(self: Any, lora_request: LoRARequest | None) -> None:
        stock(self, lora_request)
        if lora_request is not None and lora_request.lora_path.startswith(SCHEME):
            try:
                check(lora_request, Settings.of(self.vllm_config))
            except ValueError as error:
                raise VLLMValidationError(f"{lora_request.lora_name}: {error}", parameter="model") from None

    _validate_lora.lora_select = True  # type: ignore[attr-defined]
    return _validate_lora


def check(request: LoRARequest, settings: Settings) -> None:
    """Raises ValueError for a virtual adapter that a worker could not load: there, that would end the engine."""
    spec = parse(request.lora_path)
    assert spec is not None
    if len(spec.members) > settings.library_slots:
        raise ValueError(f"{len(spec.members)} members, and the engine has {settings.library_slots} library slots")
    for member in spec.members:
        # Anything else is a hub id.
        if member.path.startswith("/") and not (Path(member.path) / CONFIG).is_file():
            raise ValueError(f"its member {member.name} is gone: there is no {CONFIG} in {member.path}")


def _kept(stock: Any) -> Any:
    def _finish_request(self: Any, req_state: Any) -> None:
        stock(self, req_state)
        request = req_state.lora_request
        if request is None or not request.lora_path.startswith(SCHEME) or req_state.detokenizer is None:
            return
        kept: OrderedDict[str, list[Finished]] = getattr(self, KEPT, None) or OrderedDict()
        setattr(self, KEPT, kept)
        answer = tuple(req_state.detokenizer.output_token_ids)
        one = Finished(
            req_state.request_index, req_state.request_id, tuple(req_state.prompt_token_ids or ()), answer
        )
        kept.setdefault(req_state.external_req_id, []).append(one)
        while len(kept) > MOST_KEPT:
            kept.popitem(last=False)

    return _finish_request

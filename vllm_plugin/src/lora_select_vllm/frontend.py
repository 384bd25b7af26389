"""Where the plugin enters vLLM's front end: what would end the engine is refused, finished answers are known."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest

from lora_select_vllm.settings import Settings
from lora_select_vllm.spec import SCHEME, parse

ATTRIBUTE = "lora_select_answers"
KEPT_TOKENS = 1 << 17
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Finished:
    """An answer of a virtual adapter: the id that its request was given, which of its choices it is, vLLM's own
    id, and the token ids of prompt (() for embeddings, of `length` in any case) and answer."""

    request: str
    index: int
    internal: str
    prompt: tuple[int, ...]
    length: int
    answer: tuple[int, ...]

    @property
    def before_answer(self) -> int:
        """The position that computed the first token of the answer."""
        return self.length - 1


class Answers:
    """The newest ones."""

    def __init__(self) -> None:
        self._kept: deque[Finished] = deque()
        self._tokens = 0

    def add(self, one: Finished) -> None:
        """Older ones make room."""
        self._kept.append(one)
        self._tokens += len(one.prompt) + len(one.answer)
        while self._tokens > KEPT_TOKENS and len(self._kept) > 1:
            oldest = self._kept.popleft()
            self._tokens -= len(oldest.prompt) + len(oldest.answer)

    def of(self, request: str) -> list[Finished]:
        """All choices of an answer by its id; one with several prompts has an id for each, ID-0, ID-1, …"""
        same = [one for one in self._kept if one.request == request]
        if same:
            return sorted(same, key=lambda one: one.index)
        several = [one for one in self._kept if one.request.startswith(f"{request}-")]
        number = {one: one.request.removeprefix(f"{request}-") for one in several}
        numbered = [one for one in several if number[one].isdigit()]
        return sorted(numbered, key=lambda one: (int(number[one]), one.index))


def install() -> None:
    """Check virtual adapters before a request gets to the engine, and keep what was answered with them."""
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor

    if getattr(InputProcessor._validate_lora, "lora_select", False):
        return
    InputProcessor._validate_lora = _checked(InputProcessor._validate_lora)  # type: ignore[method-assign]
    OutputProcessor._finish_request = _kept(OutputProcessor._finish_request)  # type: ignore[method-assign]


def answers(processor: Any) -> Answers:
    """Those of an OutputProcessor."""
    if not hasattr(processor, ATTRIBUTE):
        setattr(processor, ATTRIBUTE, Answers())
    kept: Answers = getattr(processor, ATTRIBUTE)
    return kept


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
        adapter = req_state.lora_request
        if adapter is None or not adapter.lora_path.startswith(SCHEME) or req_state.detokenizer is None:
            return
        one = Finished(
            req_state.external_req_id,
            req_state.request_index,
            req_state.request_id,
            tuple(req_state.prompt_token_ids or ()),
            req_state.prompt_len,
            tuple(req_state.detokenizer.output_token_ids),
        )
        answers(self).add(one)

    return _finish_request

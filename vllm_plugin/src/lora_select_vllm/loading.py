"""How a worker loads what a request names: an adapter's files, or a virtual adapter's library."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import vllm
from vllm.logger import init_logger
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from lora_select_vllm.library import LibraryModelManager
from lora_select_vllm.spec import Member, parse

# Below vLLM's own name, or nobody prints it.
logger = init_logger(f"vllm.{__name__}")

PATTERNS = ("rank_pattern", "alpha_pattern")


def refuse_patterns(request: LoRARequest) -> None:
    """Raises ValueError for an adapter with a scale of its own for some modules, where vLLM does not know that: up
    to 0.26 at least, it computes another adapter without a word."""
    config = Path(request.lora_path) / "adapter_config.json"
    if PATTERNS[0] in PEFTHelper.__dataclass_fields__ or not config.is_file():  # a hub id is none
        return
    told = json.loads(config.read_text(encoding="utf-8"))
    if ignored := [key for key in PATTERNS if told.get(key)]:
        raise ValueError(
            f"{request.lora_name}: vLLM {vllm.__version__} ignores {' and '.join(ignored)}, and would answer with "
            "another adapter: take vLLM 0.32, or train one rank and one alpha for all modules"
        )


class LibraryWorkerManager(LRUCacheWorkerLoRAManager):
    """vLLM's loader of adapters, which knows virtual ones, too."""

    _manager_cls = LibraryModelManager
    _adapter_manager: LibraryModelManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gone: set[int] = set()  # virtual adapters that were removed, whose names are never given again
        self._late: set[int] = set()  # those of them that have a request all the same

    def _load_adapter(self, lora_request: LoRARequest) -> Any:
        refuse_patterns(lora_request)
        return super()._load_adapter(lora_request)

    def _apply_adapters(self, lora_requests: Iterable[LoRARequest]) -> None:
        # A set of names has another order in every process, and members' slots must be the same in all workers.
        ordered = sorted(lora_requests, key=lambda one: one.lora_int_id)
        self._apply_late({one.lora_int_id for one in ordered} & self._gone)
        super()._apply_adapters(ordered)

    def _apply_late(self, asked: set[int]) -> None:
        """A request that got its model before that was removed, and was not counted yet, must not end the engine,
        nor bring the library back."""
        for lora_id in self._late - asked:
            self._adapter_manager.remove_virtual(lora_id)
        for lora_id in sorted(asked - self._late):
            logger.warning("virtual adapter %d is gone: a request that came too late gets the base", lora_id)
            self._adapter_manager.add_late(lora_id)
        self._late = asked

    def add_adapter(self, lora_request: LoRARequest) -> bool:
        """Load it, if it is not loaded. Raises ValueError for a virtual one that cannot be."""
        manager = self._adapter_manager
        if lora_request.lora_int_id in manager.virtual:
            return True
        spec = parse(lora_request.lora_path)
        if spec is None:
            return bool(super().add_adapter(lora_request))
        self._gone.discard(lora_request.lora_int_id)  # somebody who gives numbers himself

        def load(member: Member) -> None:
            self.add_adapter(LoRARequest(member.name, member.id, member.path))

        manager.add_virtual(lora_request.lora_int_id, spec, load)
        return True

    def remove_adapter(self, adapter_id: int) -> bool:
        """Unload it. Raises ValueError for a member of a library."""
        manager = self._adapter_manager
        if adapter_id in manager.virtual:
            manager.remove_virtual(adapter_id)
            self._gone.add(adapter_id)
            return True
        if manager.is_member(adapter_id):
            raise ValueError(f"adapter {adapter_id} is in the library of a virtual adapter")
        return bool(super().remove_adapter(adapter_id))

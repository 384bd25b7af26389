"""How a worker loads what a request names: an adapter's files, or a virtual adapter's library."""

from __future__ import annotations

from collections.abc import Iterable

from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from lora_select_vllm.library import LibraryModelManager
from lora_select_vllm.spec import Member, parse


class LibraryWorkerManager(LRUCacheWorkerLoRAManager):
    """vLLM's loader of adapters, which knows virtual ones, too."""

    _manager_cls = LibraryModelManager
    _adapter_manager: LibraryModelManager

    def _apply_adapters(self, lora_requests: Iterable[LoRARequest]) -> None:
        # A set of names has another order in every process, and members' slots must be the same in all workers.
        super()._apply_adapters(sorted(lora_requests, key=lambda one: one.lora_int_id))

    def add_adapter(self, lora_request: LoRARequest) -> bool:
        """Load it, if it is not loaded. Raises ValueError for a virtual one that cannot be."""
        manager = self._adapter_manager
        if lora_request.lora_int_id in manager.virtual:
            return True
        spec = parse(lora_request.lora_path)
        if spec is None:
            return bool(super().add_adapter(lora_request))

        def load(member: Member) -> None:
            self.add_adapter(LoRARequest(member.name, member.id, member.path))

        manager.add_virtual(lora_request.lora_int_id, spec, load)
        return True

    def remove_adapter(self, adapter_id: int) -> bool:
        """Unload it. Raises ValueError for a member of a library."""
        manager = self._adapter_manager
        if adapter_id in manager.virtual:
            manager.remove_virtual(adapter_id)
            return True
        if manager.is_member(adapter_id):
            raise ValueError(f"adapter {adapter_id} is in the library of a virtual adapter")
        return bool(super().remove_adapter(adapter_id))
